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

#include "twice.h"

namespace pmaf {
namespace PMAF_ISA {

// Rows of double-precision lanes in memory, `stride` numbers apart.
template <class D, int stride>
struct Rows {
  double* p;
  PMAF_INLINE D operator[](std::ptrdiff_t i) const { return D::load(p + i * stride); }
  PMAF_INLINE void set(std::ptrdiff_t i, D x) const { x.store(p + i * stride); }
};

// How often neighbours in a sequence had different signs.
template <class D>
struct SignChanges;
template <int W>
struct SignChanges<Lanes<double, W>> {
  using D = Lanes<double, W>;
  using M = typename D::mask::V;
  using U = typename Unsigned<W>::V;
  M count{};
  PMAF_INLINE void add(D one, D other) { count += (M)(((U)((M)one.v ^ (M)other.v)) >> 63); }
  PMAF_INLINE D number() const { return to_numbers<double, W>(count); }
};
template <class L>
struct SignChanges<Twice<L>> {
  SignChanges<L> a, b;
  PMAF_INLINE void add(Twice<L> one, Twice<L> other) { a.add(one.a, other.a), b.add(one.b, other.b); }
  PMAF_INLINE Twice<L> number() const { return {a.number(), b.number()}; }
};

// P, P', P''/2 and the number of sign changes at x; the first three up to a common positive factor.
template <class D>
struct Minors {
  D p, dp, ddp, count;
};

// T, scaled so that its norm is at most one, and −e² (no less than 1e-40 in magnitude, so that no minor and its
// neighbour vanish together).
template <class D, int stride>
struct Tridiagonal {
  int n;
  Rows<D, stride> d, e, minus_e2;
};

constexpr int rows_between_rescaling = 8;

template <bool derivatives, class D, int stride>
PMAF_INLINE Minors<D> minors(const Tridiagonal<D, stride>& t, D x) {
  D p0(0.0), p(1.0), dp0(0.0), dp(0.0), r0(0.0), r(0.0), f(0.0);
  SignChanges<D> changes;
  for (int first = 0; first < t.n; first += rows_between_rescaling) {
    const int last = first + rows_between_rescaling < t.n ? first + rows_between_rescaling : t.n;
    if (first > 0) {
      D size = max(abs(p0), abs(p));
      if (derivatives) size = max(size, max(max(abs(dp0), abs(dp)), max(abs(r0), abs(r))));
      const D unit = inverse_power_of_two(size);
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
      changes.add(p, next);
      p0 = p, p = next;
      if (i + 1 < t.n) f = t.minus_e2[i];
    }
  }
  return {p, dp, r, changes.number()};
}

template <class D, int stride>
__attribute__((noinline)) void minors_and_derivatives(const Tridiagonal<D, stride>& t, const D& x,
                                                      Minors<D>& result) {
  result = minors<true>(t, x);
}

// How many eigenvalues lie above x.
template <class D, int stride>
__attribute__((noinline)) void count_above(const Tridiagonal<D, stride>& t, const D& x,
                                           D& count) {
  count = minors<false>(t, x).count;
}

// Where the sums G and H were taken, for a second use by the eigenvalues that follow.
template <class D>
struct Sample {
  D x, g, h;
};

// The bounds that G and H give, with the terms of known eigenvalues taken away, and widened by what rounding and the
// error of these values leave uncertain.
template <class D>
struct Bounds {
  D low, high;
  typename D::mask valid;
};

template <class D, int stride>
PMAF_INLINE Bounds<D> bounds(const Sample<D>& at, const Rows<D, stride>& known, int w,
                                             int n, double tolerance) {
  constexpr double rounding = 1e-14;
  D g = at.g, h = at.h, doubt_g = abs(g) * D(rounding), doubt_h = h * D(rounding);
  for (int j = 0; j < w; j++) {
    const D q = D(1.0) / (at.x - known[j]), square = q * q;
    g -= q;
    h -= square;
    doubt_g = fma(square, D(tolerance), doubt_g);
    doubt_h = fma(square * abs(q), D(2 * tolerance), doubt_h);
  }
  const double m = n - w;
  const D root = g + sqrt(max(D(0.0), D(m - 1) * fnma(g, g, D(m) * h)));
  const D inverse = D(1.0) / (h * root), over_h = root * inverse;
  const D newton = g * over_h, laguerre = D(m) * h * inverse;
  if (w == 0) return {at.x - newton, at.x - laguerre, (g > D(0.0)) & (h > D(0.0)) & finite(newton) & finite(laguerre)};
  const D doubt = D(4.0) * fma(doubt_h, over_h, doubt_g * h * inverse * D(m));  // m/root is no less than 1/g
  const auto valid = (g > D(0.0)) & (h > D(0.0)) & (doubt < D(1e-2)) & finite(newton) & finite(laguerre);
  return {fnma(newton, D(1.0) + doubt, at.x), fnma(laguerre, D(1.0) - doubt, at.x), valid};
}

// G and H at x.
template <class D, int stride>
PMAF_INLINE Sample<D> sample(const Minors<D>& m, D x) {
  const D inverse = D(1.0) / m.p, g = m.dp * inverse;
  return {x, g, fnma(D(2.0), m.ddp * inverse, g * g)};
}

constexpr int most_guesses = 40, most_bisections = 64;

// The `wanted` largest eigenvalues in descending order, to an absolute error of tol, into values; the smallest one,
// within a few per cent, into `other_end`.
template <class D, int stride>
void eigenvalues(const Tridiagonal<D, stride>& t, int wanted, double tolerance, const Rows<D, stride>& values,
                 D& other_end) {
  const int n = t.n;
  const D tol(tolerance);
  // Between Gershgorin's discs, and no further from the mean than the variance allows (Laguerre's bound at infinity).
  D top = t.d[0], bottom = t.d[0], highest = t.d[0], trace(0.0), squares(0.0);
  for (int i = 0; i < n; i++) {
    const D d = t.d[i];
    D radius(0.0);
    trace += d;
    squares = fma(d, d, squares);
    if (i > 0) radius += abs(t.e[i - 1]);
    if (i < n - 1) {
      const D e = t.e[i];
      radius += abs(e);
      squares = fma(e + e, e, squares);
    }
    top = max(top, d + radius);
    bottom = min(bottom, d - radius);
    highest = max(highest, d);
  }
  const D mean = trace * D(1.0 / n), spread = sqrt(max(D(0.0), D(n - 1.0) * (squares * D(1.0 / n) - mean * mean)));
  const D no_more = top, no_less = bottom;
  top = min(top, mean + spread) + D(1e-3), bottom = max(bottom, mean - spread) - D(1e-3);

  Minors<D> m;
  Sample<D> first, second;
  D x;
  for (int w = 0; w < wanted; w++) {
    // What counts have proved, and what is believed.
    D proved_low = bottom, proved_high = top, low = w == 0 ? highest : bottom, high = top;
    typename D::mask done = D(1.0) < D(0.0);
    x = top;
    if (w > 0) {
      proved_high = high = min(top, values[w - 1] + tol);
      const auto one = bounds(first, values, w, n, tolerance), two = bounds(second, values, w, n, tolerance);
      high = select(one.valid, min(high, one.high), high);
      low = select(one.valid, max(low, one.low), low);
      high = select(two.valid, min(high, two.high), high);
      low = select(two.valid, max(low, two.low), low);
      low = min(low, high);
      x = high;
    }
    for (int guess = 0; guess < most_guesses; guess++) {
      minors_and_derivatives(t, x, m);
      const Sample<D> here = sample<D, stride>(m, x);
      const auto above = m.count <= D(double(w));
      if (w == 0 && guess == 0) first = second = here;
      if (w == 0 && guess == 1) {
        const auto use = above & ~done;
        second = {select(use, here.x, first.x), select(use, here.g, first.g), select(use, here.h, first.h)};
      }
      const D width = high - low;
      proved_high = select(above & ~done, min(proved_high, x), proved_high);
      proved_low = select(above | done, proved_low, max(proved_low, x));
      const auto b = bounds(here, values, w, n, tolerance);
      const auto use = above & b.valid;
      D new_high = select(above, min(high, x), high), new_low = select(above, low, max(low, x));
      new_high = select(use, min(new_high, b.high), new_high);
      new_low = select(use, max(new_low, b.low), new_low);
      // Laguerre's bound is an order better than the width says: about width²/step.
      const auto close = use & ((new_high - new_low) * (new_high - new_low) <= D(0.01) * tol * (x - new_high));
      new_low = min(select(close, max(new_low, new_high - tol), new_low), new_high);
      high = select(done, high, new_high);
      low = select(done, low, new_low);
      done = done | (high - low <= tol);
      if (all(done)) break;
      // From above Laguerre's bound; where that converges slowly (a cluster), a point close to the other bound; after a
      // point below, or one that told nothing, the other end or the middle.
      const D rest = high - low;
      const D slow = D(guess < 4 ? 1.0 : 0.25) * width;
      const D after_above = select(use, select(rest <= slow, high, fma(D(0.0625), rest, low)), fma(D(0.5), rest, low));
      const D after_below = select(high < proved_high, high, fma(D(0.5), rest, low));
      x = select(done, x, select(above, after_above, after_below));
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
    trace -= value;
    squares = fnma(value, value, squares);
  }

  // The other end: what the sums of the values and of their squares leave, or a few of Laguerre's steps, mirrored.
  const int rest = n - wanted;
  if (rest <= 2) {
    const D middle = trace * D(rest > 0 ? 1.0 / rest : 0.0);
    const D half = rest == 2 ? sqrt(max(D(0.0), squares * D(0.5) - middle * middle)) : D(0.0);
    other_end = rest == 0 ? values[n - 1] : middle - half;
  } else {
    D inner = bottom;
    x = bottom;
    for (int pass = 0; pass < (n > 16 ? 3 : 2); pass++) {
      minors_and_derivatives(t, x, m);
      const Sample<D> here = sample<D, stride>(m, x);
      const D g = -here.g, h = here.h, root = g + sqrt(max(D(0.0), D(n - 1.0) * fnma(g, g, D(double(n)) * h)));
      const D laguerre = D(double(n)) / root, newton = g / h;
      const auto valid = (g > D(0.0)) & (h > D(0.0)) & finite(laguerre) & finite(newton);
      inner = select(valid, x + newton, inner);  // from within: exact for clusters
      x = select(valid, x + laguerre, x);
    }
    other_end = inner;
  }
  other_end = min(max(other_end, no_less), no_more);
}

}  // namespace PMAF_ISA
}  // namespace pmaf
