// Eigenvalues of real symmetric tridiagonal matrices in lanes, in double precision, from the largest down.
//
// The leading minors of xI − T,  P₀ = 1,  P₁ = x − d₀,  Pᵢ₊₁ = (x − dᵢ) Pᵢ − eᵢ₋₁² Pᵢ₋₁,  change sign as often as there
// are eigenvalues above x (Sturm), and need no division; with their first two derivatives they give
//
//     G = P'/P = Σ 1/(x − λᵢ),   H = G² − P''/P = Σ 1/(x − λᵢ)².
//
// Take away the terms of eigenvalues known already. From any x above all m others, the largest of these lies between
//
//     x − G/H   (a weighted mean of distances is no less than the least one)   and
//     x − m/(G + √((m − 1)(mH − G²)))   (Laguerre's bound).
//
// The second converges cubically to a simple eigenvalue, the first quadratically to a cluster of any multiplicity. Both
// serve as guesses; counts on either side of the result prove it, and bisection replaces what is not proved.
#pragma once

#include "lanes.h"

namespace pmaf {
namespace PMAF_ISA {

// Rows of double-precision lanes in memory, `stride` numbers apart.
template <int Wd, int stride>
struct Rows {
  using D = Lanes<double, Wd>;
  double* p;
  PMAF_INLINE D operator[](std::ptrdiff_t i) const { return D::load(p + i * stride); }
  PMAF_INLINE void set(std::ptrdiff_t i, D x) const { x.store(p + i * stride); }
};

// P, P', P''/2 and the number of sign changes at x; the first three up to a common positive factor.
template <class D>
struct Minors {
  D p, dp, ddp, count;
};

// T, scaled so that its norm is at most one, and −e² (no less than 1e-40 in magnitude, so that no minor and its
// neighbour vanish together).
template <int Wd, int stride>
struct Tridiagonal {
  using D = Lanes<double, Wd>;
  int n;
  Rows<Wd, stride> d, e, minus_e2;
};

constexpr int rows_between_rescaling = 8;

template <bool derivatives, int Wd, int stride>
PMAF_INLINE Minors<Lanes<double, Wd>> minors(const Tridiagonal<Wd, stride>& t, Lanes<double, Wd> x) {
  using D = Lanes<double, Wd>;
  using M = typename D::mask::V;
  D p0(0.0), p(1.0), dp0(0.0), dp(0.0), r0(0.0), r(0.0), f(0.0);
  M changes{};
  for (int first = 0; first < t.n; first += rows_between_rescaling) {
    const int last = first + rows_between_rescaling < t.n ? first + rows_between_rescaling : t.n;
    if (first > 0) {
      D size = max(abs(p0), abs(p));
      if (derivatives) size = max(size, max(max(abs(dp0), abs(dp)), max(abs(r0), abs(r))));
      const D unit = power_of_two(-exponent(size));
      p0 *= unit, p *= unit;
      if (derivatives) dp0 *= unit, dp *= unit, r0 *= unit, r *= unit;
    }
    for (int i = first; i < last; i++) {
      const D s = x - t.d[i];
      const D next = fma(s, p, f * p0);
      if (derivatives) {
        const D dnext = fma(s, dp, fma(f, dp0, p));
        const D rnext = fma(s, r, fma(f, r0, dp));
        dp0 = dp, dp = dnext, r0 = r, r = rnext;
      }
      using U = typename Unsigned<Wd>::V;
      changes += (M)(((U)((M)next.v ^ (M)p.v)) >> 63);
      p0 = p, p = next;
      if (i + 1 < t.n) f = t.minus_e2[i];
    }
  }
  return {p, dp, r, D::of(__builtin_convertvector(changes, typename D::V))};
}

template <int Wd, int stride>
__attribute__((noinline)) void minors_and_derivatives(const Tridiagonal<Wd, stride>& t, const Lanes<double, Wd>& x,
                                                      Minors<Lanes<double, Wd>>& result) {
  result = minors<true>(t, x);
}

// How many eigenvalues lie above x.
template <int Wd, int stride>
__attribute__((noinline)) void count_above(const Tridiagonal<Wd, stride>& t, const Lanes<double, Wd>& x,
                                           Lanes<double, Wd>& count) {
  count = minors<false>(t, x).count;
}

// Where the sums G and H were taken, for a second use by the eigenvalues that follow.
template <class D>
struct Sample {
  D x, g, h;
};

// The bounds that G and H give, with the terms of known eigenvalues taken away.
template <class D>
struct Bounds {
  D low, high;
  typename D::mask valid;
};

template <int Wd, int stride>
PMAF_INLINE Bounds<Lanes<double, Wd>> bounds(const Sample<Lanes<double, Wd>>& at, const Rows<Wd, stride>& known, int w,
                                             int n) {
  using D = Lanes<double, Wd>;
  D g = at.g, h = at.h;
  for (int j = 0; j < w; j++) {
    const D q = D(1.0) / (at.x - known[j]);
    g -= q;
    h = fnma(q, q, h);
  }
  const double m = n - w;
  const D inside = max(D(0.0), D(m - 1) * fnma(g, g, D(m) * h));
  const D newton = g / h, laguerre = D(m) / (g + sqrt(inside));
  const auto valid = (g > D(1e-5) * abs(at.g)) & (h > D(1e-8) * at.h) & finite(newton) & finite(laguerre);
  return {at.x - newton, at.x - laguerre, valid};
}

constexpr int most_guesses = 40, most_bisections = 64;

// The `wanted` largest eigenvalues in descending order, to an absolute error of tol, into values; the smallest one,
// roughly and from below, into `other_end`.
template <int Wd, int stride>
void eigenvalues(const Tridiagonal<Wd, stride>& t, int wanted, double tolerance, const Rows<Wd, stride>& values,
                 Lanes<double, Wd>& other_end) {
  using D = Lanes<double, Wd>;
  const int n = t.n;
  const D tol(tolerance);
  D top = t.d[0], bottom = t.d[0];
  for (int i = 0; i < n; i++) {
    D radius(0.0);
    if (i > 0) radius += abs(t.e[i - 1]);
    if (i < n - 1) radius += abs(t.e[i]);
    top = max(top, t.d[i] + radius);
    bottom = min(bottom, t.d[i] - radius);
  }
  const D no_more = top, no_less = bottom;
  top += D(1e-3), bottom -= D(1e-3);

  Minors<D> m;
  Sample<D> first, second;
  D x = bottom, middle = bottom;
  for (int pass = 0; pass < 2; pass++) {  // the other end: both bounds, mirrored, and what lies between them
    minors_and_derivatives(t, x, m);
    const D g = -(m.dp / m.p), q = m.ddp / m.p, h = fnma(D(2.0), q, g * g);
    const D inside = max(D(0.0), D(n - 1.0) * fnma(g, g, D(double(n)) * h));
    const D laguerre = D(double(n)) / (g + sqrt(inside)), newton = g / h;
    const auto valid = (g > D(0.0)) & (h > D(0.0)) & finite(laguerre) & finite(newton);
    middle = select(valid, x + D(0.5) * (laguerre + newton), middle);
    x = select(valid, x + laguerre, x);
  }
  other_end = min(max(middle, no_less), no_more);

  for (int w = 0; w < wanted; w++) {
    // What counts have proved, and what is believed.
    D proved_low = bottom, proved_high = top, low = bottom, high = top;
    typename D::mask done = D(1.0) < D(0.0), failed_before = done;
    x = top;
    if (w > 0) {
      proved_high = high = min(top, values[w - 1] + tol);
      const auto one = bounds(first, values, w, n), two = bounds(second, values, w, n);
      high = select(one.valid, min(high, one.high), high);
      low = select(one.valid, max(low, one.low), low);
      high = select(two.valid, min(high, two.high), high);
      low = select(two.valid, max(low, two.low), low);
      low = min(low, high);
      x = high;
    }
    for (int guess = 0; guess < most_guesses; guess++) {
      minors_and_derivatives(t, x, m);
      const D g = m.dp / m.p, q = m.ddp / m.p;
      const Sample<D> here{x, g, fnma(D(2.0), q, g * g)};
      if (w == 0 && guess < 2) {
        if (guess == 0) first = second = here;
        else second = {select(done, first.x, here.x), select(done, first.g, here.g), select(done, first.h, here.h)};
      }
      const auto above = m.count <= D(double(w));
      const D width = high - low;
      proved_high = select(above & ~done, min(proved_high, x), proved_high);
      proved_low = select(above | done, proved_low, max(proved_low, x));
      const auto b = bounds(here, values, w, n);
      const auto use = above & b.valid;
      D new_high = select(above, min(high, x), high), new_low = select(above, low, max(low, x));
      new_high = select(use, min(new_high, b.high), new_high);
      new_low = select(use, max(new_low, b.low), new_low);
      new_low = min(new_low, new_high);
      high = select(done, high, new_high);
      low = select(done, low, new_low);
      done = done | (high - low <= tol);
      if (all(done)) break;
      const D rest = high - low;
      const auto quick = use & (rest <= D(0.25) * width);
      const D away = low + select(failed_before, D(0.5), D(0.0625)) * rest;
      failed_before = ~quick & ~failed_before;
      x = select(done, x, select(quick, high, away));
    }
    // Proof, and bisection of what it refutes.
    D above_high, above_low;
    count_above(t, high + tol, above_high);
    count_above(t, low - tol, above_low);
    auto right = done & (above_high <= D(double(w))) & (above_low >= D(w + 1.0));
    if (!all(right)) {
      high = select(right, high, proved_high), low = select(right, low, proved_low);
      for (int step = 0; step < most_bisections; step++) {
        const D middle = D(0.5) * (low + high);
        right = right | (high - low <= tol);
        if (all(right)) break;
        count_above(t, middle, above_high);
        const auto up = above_high <= D(double(w));
        high = select(~right & up, middle, high);
        low = select(~right & ~up, middle, low);
      }
    }
    D value = max(min(high, no_more), no_less);
    if (w > 0) value = min(value, values[w - 1]);
    values.set(w, value);
  }
}

}  // namespace PMAF_ISA
}  // namespace pmaf
