// The smallest eigenvalue of a tridiagonal matrix, and the secular equation on one, each step in O(n).
//
// Smallest eigenvalue. With pivots qᵢ of T − σI > 0, S₁ = −Σ (log qᵢ)' = Σ 1/(λⱼ − σ) and S₂ = Σ 1/(λⱼ − σ)². The
// nearest eigenvalue then lies between σ plus Laguerre's step and σ + S₁/S₂,
//
//     n/(S₁ + √((n−1)(nS₂ − S₁²)))  ≤  λ₁ − σ  ≤  S₁/S₂,
//
// the lower end with an error of third order where λ₁ is simple, the upper one of second order however often it repeats.
// Probing the lower end, or close to the upper one where the ends are far apart, always shrinks a bracket whose left side
// was seen to be positive definite.
//
// Secular equation. With t = λ + λ₁ and p = (T + λI)⁻¹γ, φ(t) = ‖p‖ falls from the pole at t = 0, and Newton's method on
// 1/φ, concave and nearly linear,
//
//     t ← t + (φ − 1)φ²/s,     s = pᵀ(T + λI)⁻¹p = Σ (L⁻¹p)ᵢ²/qᵢ,
//
// climbs to the root of φ = 1 from the left without overshooting. The bracket [low, high] makes it end in any case; where
// even the smallest t leaves φ < 1, the case is hard: t = 0, and what is missing goes along the first eigenvector.
//
// Close to the pole. Where t is small beside ‖T‖, the digits that λ = t − λ₁ lacks make ‖p‖ noise. There p = q + ξv₁ with q
// orthogonal to v₁ from the bordered system
//
//     [ T + λI  v₁ ] [ q ]   [ γ ]
//     [ v₁ᵀ     0  ] [ ν ] = [ 0 ],     ξ = ν/t,     φ(t)² = ‖q‖² + (ν/t)²,
//
// which is well conditioned where λ₁ is simple, so that t keeps all its digits.
//
// References: Parlett, The symmetric eigenvalue problem (1980); Moré and Sorensen, Computing a trust region step (1983).
#pragma once

#include "bordered_tridiagonal.h"

namespace pmaf {
namespace PMAF_ISA {

// Bounds on the spectrum by Gershgorin's circles.
template <class R>
PMAF_INLINE void gershgorin(int n, const R* d, const R* e, R& low, R& high) {
  for (int i = 0; i < n; i++) {
    R radius(0);
    if (i > 0) radius += abs(e[i - 1]);
    if (i < n - 1) radius += abs(e[i]);
    low = i == 0 ? d[i] - radius : min(low, d[i] - radius);
    high = i == 0 ? d[i] + radius : max(high, d[i] + radius);
  }
}

// How many eigenvalues lie below x: the negative pivots of T − xI (Sturm).
template <class R>
R count_below(const Tridiagonal<R>& T, R x) {
  const R zero(0), one(1);
  R count = zero, q = zero;
  for (int i = 0; i < T.n; i++) {
    const R above = i > 0 ? T.e[i - 1] * T.e[i - 1] / q : zero;
    q = away_from_zero(T.d[i] - x - above, T.floor);
    count += select(q < zero, one, zero);
  }
  return count;
}

// λ₁ to `accuracy`·‖T‖. `low` is Gershgorin's bound.
template <class R>
R smallest_eigenvalue(const Tridiagonal<R>& T, R low, typename R::scalar accuracy = 2 * epsilon<typename R::scalar>) {
  using S = typename R::scalar;
  constexpr int most = 80;
  const R zero(0), one(1), n{S(T.n)};
  const R tolerance = T.norm * R(accuracy);
  R high = T.d[0];
  for (int i = 1; i < T.n; i++) high = min(high, T.d[i]);
  low = min(low, high) - tolerance;  // seen, or known, to be below λ₁
  R probe = low, best = low;
  auto active = high - low > tolerance;
  for (int step = 0; step < most && any(active); step++) {
    R q = T.d[0] - probe, inverse = one / q, a = -inverse, b = zero;
    auto definite = q > T.floor;
    R first = inverse, second = inverse * inverse;
    for (int i = 1; i < T.n; i++) {
      const R f = T.e[i - 1] * T.e[i - 1] * inverse;
      q = T.d[i] - probe - f;
      definite = definite & (q > T.floor);
      inverse = one / q;
      const R slope = fma(f, a, -one);             // q'
      const R curve = f * fnma(a + a, a, b);       // q''
      a = slope * inverse;
      b = curve * inverse;
      first -= a;
      second += fnma(b, one, a * a);
    }
    const R spread = max((n - one) * fnma(first, first, n * second), zero);
    const R lower = n / (first + sqrt(spread)), upper = first / second;
    const auto good = definite & active, bad = ~definite & active;
    low = select(good, probe, low);
    high = select(good, min(high, probe + upper), select(bad, min(high, probe), high));
    best = select(good, min(probe + lower, high), best);
    const auto close = lower * R(2) > high - probe;
    const R near = fma(high - probe, R(S(0.9)), probe);
    const R next = select(good, select(close, probe + lower, near), (low + high) * R(S(0.5)));
    const auto done = (high - low <= tolerance) | (good & (lower <= tolerance * R(S(0.25))) & close);
    best = select(bad & (high - low <= tolerance), low, best);
    probe = select(active, next, probe);
    active = active & ~done & (probe > low) & (probe < high);
  }
  return best;
}

// The secular equation's solution.
template <class R>
struct Root {
  R t;                      // λ + λ₁; zero where hard
  typename R::mask hard;    // φ < 1 at the smallest t
  R steps;
};

// Solves ‖(T + λI)⁻¹γ‖ = 1, and leaves (T + λI)⁻¹γ in p. `first` is |v₁ᵀγ|, `length` is ‖γ‖, `spread` is λₙ − λ₁ or more.
// Memory: 2n numbers.
template <class R>
Root<R> secular(const Tridiagonal<R>& T, const R* gamma, R smallest, R first, R length, R spread, R* p, R* memory) {
  using S = typename R::scalar;
  constexpr int most = 80;
  const int n = T.n;
  const R zero(0), one(1);
  const R least = T.norm * R(4 * epsilon<S>);
  R* inverse = memory;
  R* y = memory + n;
  R t = max(max(first, length - spread), least), low = zero, high = fma(length, R(S(1) + 8 * epsilon<S>), least + least);
  t = min(t, high);
  auto active = t == t;
  Root<R> root{t, zero > one, zero};
  for (int step = 0; step < most; step++) {
    const R shift = t - smallest;
    R q = T.d[0] + shift;
    auto definite = q > T.floor;
    for (int i = 0;; i++) {
      inverse[i] = one / away_from_zero(q, T.floor);
      y[i] = i == 0 ? gamma[0] : fnma(y[i - 1], T.e[i - 1] * inverse[i - 1], gamma[i]);
      if (i == n - 1) break;
      q = fnma(T.e[i] * T.e[i], inverse[i], T.d[i + 1] + shift);
      definite = definite & (q > T.floor);
    }
    R squared = zero;
    R x = zero;
    for (int i = n - 1; i >= 0; i--) {
      x = i == n - 1 ? y[i] * inverse[i] : fnma(x, T.e[i], y[i]) * inverse[i];
      p[i] = select(active, x, p[i]);
      squared = fma(x, x, squared);
      y[i] = x;
    }
    R s = zero;
    for (int i = 0; i < n; i++) {
      x = i == 0 ? y[0] : fnma(x, T.e[i - 1] * inverse[i - 1], y[i]);
      s = fma(x * x, inverse[i], s);
    }
    const R phi = sqrt(squared), miss = phi - one;
    const auto left = ~definite | (phi >= one);
    low = select(active & left, t, low);
    high = select(active & ~left, t, high);
    const auto hard = definite & (phi < one) & (t <= least);
    R next = t + miss * squared / select(s > zero, s, one);
    next = select(definite, next, max(t + t, least));
    const auto outside = ~((next > low) & (next < high));
    const R middle = select(low > zero, sqrt(low) * sqrt(high), max(high * R(S(1) / 64), min(least, high)));
    next = select(outside, middle, next);
    const auto still = abs(next - t) <= R(S(0.5) * epsilon<S>) * max(abs(shift), t);
    const auto done = hard | (definite & ((abs(miss) <= R(4 * epsilon<S>)) | still)) | (high - low <= R(epsilon<S>) * high);
    root.t = select(active, select(hard, zero, t), root.t);
    root.hard = root.hard | (active & hard);
    root.steps = select(active, R(S(step + 1)), root.steps);
    active = active & ~done;
    if (!any(active)) break;
    t = select(active, next, t);
  }
  return root;
}

// The secular equation close to the pole: overwrites x, t where `wanted` and returns where it could be solved. `side` is ±1,
// the direction along v₁ where ν is a rounding error. Memory: 2n numbers at `pivots`, 5n at `memory`.
template <class R>
typename R::mask secular_at_pole(const Tridiagonal<R>& T, const R* gamma, const R* v, R smallest, R length, R side,
                                 typename R::mask wanted, R* x, R& t, R* pivots, R* memory) {
  using S = typename R::scalar;
  constexpr int most = 80;
  const int n = T.n;
  const R zero(0), one(1);
  const auto never = zero > one;
  R *q = memory, *y = memory + n, *scratch = memory + 2 * n;
  Twisted<R> twisted;
  R low = zero, high = fma(length, R(S(1) + 8 * epsilon<S>), R(std::numeric_limits<S>::min())), now = zero, part = zero, nu, ignored;
  auto active = wanted, solved = never;
  for (int step = 0; step < most && any(active); step++) {
    twisted.factorise(T, now - smallest, pivots);
    twisted.bordered(v, gamma, zero, never, q, nu, scratch);
    twisted.bordered(v, q, zero, never, y, ignored, scratch);
    R across = zero, slope = zero;
    for (int i = 0; i < n; i++) {
      across = fma(q[i], q[i], across);
      slope = fma(q[i], y[i], slope);
    }
    // ν = v₁ᵀγ whatever t is; it is taken once, since its rounding would be divided by t. At t = 0: the hard case if ν is
    // rounding and ‖q‖ < 1; otherwise the root is not left of |ν|.
    if (step == 0) {
      const auto rounding = abs(nu) <= R(4 * epsilon<S>) * length;
      const R missing = sqrt(max(one - across, zero));
      part = select(rounding, zero, nu);
      const auto hard = active & rounding & (across <= R(S(1) + 8 * epsilon<S>));
      for (int i = 0; i < n; i++) x[i] = select(hard, fma(v[i], side * missing, q[i]), x[i]);
      t = select(hard, zero, t);
      solved = hard;
      active = active & ~hard;
      now = max(abs(part), T.norm * R(S(1e-3) * epsilon<S>));
      continue;
    }
    const R xi = part / now, squared = fma(xi, xi, across), phi = sqrt(squared);
    slope = fma(xi * xi, one / now, slope);
    const R next = now + (phi - one) * squared / select(slope > zero, slope, one);
    low = select(active & (phi >= one), now, low);
    high = select(active & (phi < one), now, high);
    const auto outside = ~((next > low) & (next < high));
    const R middle = select(low > zero, sqrt(low) * sqrt(high), high * R(S(1) / 64));
    const auto done = active & ((abs(phi - one) <= R(4 * epsilon<S>)) | (abs(next - now) <= R(2 * epsilon<S>) * now) |
                                (high - low <= R(2 * epsilon<S>) * high));
    for (int i = 0; i < n; i++) x[i] = select(done, fma(v[i], xi, q[i]), x[i]);
    t = select(done, now, t);
    solved = solved | done;
    active = active & ~done;
    now = select(outside, middle, next);
  }
  return solved;
}

}  // namespace PMAF_ISA
}  // namespace pmaf
