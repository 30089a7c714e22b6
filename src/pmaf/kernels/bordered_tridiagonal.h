// Twisted factorisations of a shifted tridiagonal matrix, and bordered systems with one, in O(n).
//
// M = T + λI, T real symmetric tridiagonal with diagonal d and off-diagonal e, M positive semidefinite up to rounding.
// Eliminating from the top down to row r and from the bottom up to row r leaves the pivots
//
//     q⁺₀ = d₀ + λ,      q⁺ᵢ = dᵢ + λ − eᵢ₋₁²/q⁺ᵢ₋₁           (i < r)
//     q⁻ₙ₋₁ = dₙ₋₁ + λ,  q⁻ᵢ = dᵢ + λ − eᵢ²/q⁻ᵢ₊₁              (i > r)
//     γ_r = q⁺_r + q⁻_r − (d_r + λ),
//
// and 1/γ_r = (M⁻¹)_rr, so the r with the smallest γ_r is where a vector that M nearly annihilates is large. All other
// pivots belong to M without row and column r, which is well conditioned where the smallest eigenvalue is simple.
//
// The bordered system
//
//     [ M   u ] [ w ]   [ h ]                [ γ_r  c ] [ w_r ]   [ α          ]       c = (N⁻¹u)_r,  α = (N⁻¹h)_r
//     [ uᵀ  0 ] [ μ ] = [ f ]    becomes     [ c   −β ] [ μ   ] = [ f − α̂      ]       β = Σ' uᵢ²/qᵢ, α̂ = Σ' uᵢhᵢ/qᵢ
//
// by the same elimination (sums over i ≠ r, of eliminated entries). Its determinant −(γ_r β + c²) has no cancellation and
// is zero only where the solution on the sphere is not locally unique; M itself may be singular.
#pragma once

#include "single.h"

namespace pmaf {
namespace PMAF_ISA {

// T, and what is small for it.
template <class R>
struct Tridiagonal {
  int n;
  const R* d;
  const R* e;
  R norm;   // ‖T‖ or a little more
  R floor;  // pivots are kept away from zero by this much
};

// |q| ≥ floor with the sign of q.
template <class R>
PMAF_INLINE R away_from_zero(R q, R floor) {
  return select(abs(q) < floor, copysign(floor, q), q);
}

// The factorisation; r is a number in each lane.
template <class R>
struct Twisted {
  int n;
  const R* e;
  R *top, *bottom;  // 1/q⁺, 1/q⁻
  R r, gamma;

  // Memory: 2n numbers at `memory`.
  void factorise(const Tridiagonal<R>& T, R shift, R* memory) {
    n = T.n;
    e = T.e;
    top = memory;
    bottom = memory + n;
    const R one(1);
    R q = T.d[n - 1] + shift;
    for (int i = n - 1;; i--) {
      const R inverse = one / away_from_zero(q, T.floor);
      bottom[i] = inverse;
      if (i == 0) break;
      q = fnma(e[i - 1] * e[i - 1], inverse, T.d[i - 1] + shift);
    }
    r = R(0);
    R smallest(0);
    for (int i = 0; i < n; i++) {
      const R shifted = T.d[i] + shift;
      const R above = i > 0 ? e[i - 1] * e[i - 1] * top[i - 1] : R(0);
      const R below = i < n - 1 ? e[i] * e[i] * bottom[i + 1] : R(0);
      top[i] = one / away_from_zero(shifted - above, T.floor);
      const R candidate = shifted - above - below;
      const auto better = i == 0 ? (candidate == candidate) : (abs(candidate) < abs(smallest));
      smallest = select(better, candidate, smallest);
      r = select(better, R(typename R::scalar(i)), r);
    }
    gamma = smallest;
  }

  // z with M z = γ_r e_r, z_r = 1.
  void vector(R* z) const {
    using S = typename R::scalar;
    const R one(1);
    z[n - 1] = one;
    for (int i = n - 2; i >= 0; i--) z[i] = select(R(S(i)) < r, -(e[i] * top[i]) * z[i + 1], one);
    for (int i = 1; i < n; i++) z[i] = select(R(S(i)) > r, -(e[i - 1] * bottom[i]) * z[i - 1], z[i]);
  }

  // h ← N⁻¹h: the top-down elimination above r, the bottom-up one below, both at r.
  template <class Z>
  void eliminate(const Z* h, Z* y, Z* memory) const {
    using S = typename R::scalar;
    Z up = h[n - 1];
    memory[n - 1] = up;
    for (int i = n - 2; i >= 0; i--) memory[i] = up = fnma(up, e[i] * bottom[i + 1], h[i]);
    Z down = h[0];
    for (int i = 0;; i++) {
      const R here{S(i)};
      y[i] = select(here < r, down, select(here > r, memory[i], down + memory[i] - h[i]));
      if (i == n - 1) break;
      down = fnma(down, e[i] * top[i], h[i + 1]);
    }
  }

  // Completes w, given w_r in `pivot` and eliminated entries in w.
  template <class Z>
  void substitute(Z pivot, Z* w) const {
    using S = typename R::scalar;
    for (int i = n - 1; i >= 0; i--) {
      const R here{S(i)};
      if (i == n - 1) {
        w[i] = select(here == r, pivot, w[i]);
        continue;
      }
      const Z solved = fnma(w[i + 1], e[i], w[i]) * top[i];
      w[i] = select(here < r, solved, select(here == r, pivot, w[i]));
    }
    for (int i = 1; i < n; i++) {
      const Z solved = fnma(w[i - 1], e[i - 1], w[i]) * bottom[i];
      w[i] = select(R(S(i)) > r, solved, w[i]);
    }
  }

  R inverse_pivot(int i) const {
    using S = typename R::scalar;
    const R here{S(i)};
    return select(here < r, top[i], select(here > r, bottom[i], R(0)));
  }

  // Solves the bordered system; free lanes have no border: w = M⁻¹h, μ = −f. Memory: 2n numbers. w may be h.
  void bordered(const R* u, const R* h, R f, typename R::mask inactive, R* w, R& mu, R* memory) const {
    R* border = memory;
    eliminate(u, border, memory + n);
    eliminate(h, w, memory + n);
    const R zero(0), one(1);
    R beta = zero, cross = zero, c = zero, alpha = zero;
    for (int i = 0; i < n; i++) {
      const R inverse = inverse_pivot(i), scaled = border[i] * inverse;
      const auto here = R(typename R::scalar(i)) == r;
      beta = fma(scaled, border[i], beta);
      cross = fma(scaled, w[i], cross);
      c = select(here, border[i], c);
      alpha = select(here, w[i], alpha);
    }
    const R g = max(gamma, zero), rest = f - cross;
    const R determinant = fma(g, beta, c * c);
    const R scale = one / select(determinant > zero, determinant, one);
    R pivot = select(determinant > zero, fma(beta, alpha, c * rest) * scale, zero);
    mu = select(determinant > zero, fnma(g, rest, c * alpha) * scale, zero);
    pivot = select(inactive, alpha / select(g > zero, g, one), pivot);
    mu = select(inactive, -f, mu);
    const R used = select(inactive, zero, mu);
    for (int i = 0; i < n; i++) w[i] = fnma(used, border[i], w[i]);
    substitute(pivot, w);
  }
};

// y = T x + shift·x
template <class R, class Z>
PMAF_INLINE void multiply(const Tridiagonal<R>& T, R shift, const Z* x, Z* y) {
  for (int i = 0; i < T.n; i++) {
    Z s = x[i] * (T.d[i] + shift);
    if (i > 0) s = fma(x[i - 1], T.e[i - 1], s);
    if (i < T.n - 1) s = fma(x[i + 1], T.e[i], s);
    y[i] = s;
  }
}

}  // namespace PMAF_ISA
}  // namespace pmaf
