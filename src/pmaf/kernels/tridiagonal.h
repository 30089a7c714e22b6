// Householder tridiagonalisation of Hermitian matrices in lanes, X = Q T Qᴴ with T real.
//
// Step j maps x = X[j+1:, j] to (β, 0, …) by H = I − τ v vᴴ with v₀ = 1, as LAPACK's hetd2 does:
//
//     β = −sign(Re x₀)‖x‖,   τ = (β − x₀)/β,   v = x/(x₀ − β) below the first,
//     p = τ X v,   w = p − ½ τ (pᴴv) v,   X ← X − v wᴴ − w vᴴ,
//
// and Q = H₀ H₁ …. The update of one step and the product of the next share one pass over the columns, two at a time.
// X lies in its lower triangle, column by column without gaps (packed), and each v takes the place of its column. Entries
// are expected to be about one in size: columns whose squares vanish beside that are taken for zero, which changes X by
// less than its rounding.
//
// The factor of an item has numbers of the item's type, in units of its own: a packed triangle, of which column j holds d at
// its diagonal, e below it, and v (its one left out) from there on; then n numbers τ, of which the last is zero, and zeros up
// to ⌊n/2⌋ + 2 rows of n numbers.
#pragma once

#include "lanes.h"

namespace pmaf {
namespace PMAF_ISA {

// How many entries a triangle of order n has.
constexpr std::ptrdiff_t triangle(std::ptrdiff_t n) { return n * (n + 1) / 2; }

// How many numbers a factor has.
constexpr std::ptrdiff_t eigen_factor_size(std::ptrdiff_t n) { return (n / 2 + 2) * n; }

// Entry (i, j), i ≥ j, of a packed lower triangle is the one at column(n, j) + i.
constexpr std::ptrdiff_t column(std::ptrdiff_t n, std::ptrdiff_t j) { return j * n - triangle(j); }

// How many reflectors there are: over the complex numbers the last one only turns e to the real axis.
template <class S>
constexpr int reflectors(int n) {
  return S::is_complex ? (n > 1 ? n - 1 : 0) : (n > 2 ? n - 2 : 0);
}

// A sum over i from `first` to n − 1, as four sums side by side, so that none waits for the one before; add(i, sum) adds
// a term.
template <class S, class Add>
PMAF_INLINE S sum_of(int first, int n, Add add) {
  S a(0.0f), b(0.0f), c(0.0f), d(0.0f);
  int i = first;
  for (; i + 4 <= n; i += 4) a = add(i, a), b = add(i + 1, b), c = add(i + 2, c), d = add(i + 3, d);
  for (; i < n; i++) a = add(i, a);
  return (a + b) + (c + d);
}

// Squares up to here are lost.
template <class T>
constexpr T negligible = sizeof(T) == 4 ? T(1e-30) : T(1e-280);

// τ, β, and 1/(x₀ − β), with which the numbers after x₀ make v; zero where these vanish.
template <class S>
struct Reflector {
  S tau, inverse;
  typename S::real beta;
};

// The reflector of x₀ and numbers whose squares have the sum `squares`.
template <class S>
PMAF_INLINE Reflector<S> reflector_of(S x0, typename S::real squares) {
  using L = typename S::real;
  using T = typename L::scalar;
  const L x0_real = real_part(x0);
  const auto trivial = squares + (add_square(x0, L(T(0))) - x0_real * x0_real) <= L(negligible<T>);
  const L norm = sqrt(add_square(x0, squares));
  const L beta = select(trivial, x0_real, -copysign(norm, x0_real));
  const L safe = select(trivial, L(T(1)), beta);
  const S difference = S(safe) - x0;
  const S tau = select(trivial, S(T(0)), difference * (L(T(1)) / safe));
  const L size = add_square(difference, L(T(0)));
  const S inverse = select(trivial, S(T(0)), -conj(difference) * (L(T(1)) / select(trivial, L(T(1)), size)));
  return {tau, inverse, beta};
}

// That of x₀ = x[j + 1], …, x[n − 1]: returns τ and β and turns x into v.
template <class S>
PMAF_INLINE void reflector(int n, int j, S* x, S& tau, typename S::real& beta) {
  using L = typename S::real;
  using T = typename L::scalar;
  const L squares = sum_of<L>(j + 2, n, [&](int i, L sum) { return add_square(x[i], sum); });
  const Reflector<S> found = reflector_of(x[j + 1], squares);
  tau = found.tau, beta = found.beta;
  x[j + 1] = S(T(1));
  for (int i = j + 2; i < n; i++) x[i] = x[i] * found.inverse;
}

// a − x·conj(y)
template <class S>
PMAF_INLINE S minus_outer(S a, S x, S y) {
  return fnma(x, conj(y), a);
}

// One pass over the columns from `first` on: X ← X − v wᴴ − w vᴴ (the last step's), from one place to another, and p = X u.
template <bool update, class S>
void update_and_multiply(int n, int first, const S* from, S* A, const S* v, const S* w, const S* u, S* p) {
  using T = typename S::scalar;
  using L = typename S::real;
  const auto diagonal = [&](int i) {
    S a = from[column(n, i) + i];
    if (update) A[column(n, i) + i] = a = S(real_part(minus_outer(minus_outer(a, v[i], w[i]), w[i], v[i])));
    return real_part(a);
  };
  for (int i = first; i < n; i++) p[i] = S(T(0));
  int k = first;
  for (; k + 1 < n; k += 2) {
    const S *a = from + column(n, k), *b = from + column(n, k + 1);
    S *to_a = A + column(n, k), *to_b = A + column(n, k + 1);
    const S uk = u[k], ul = u[k + 1];
    const S vk = update ? v[k] : uk, vl = update ? v[k + 1] : ul, wk = update ? w[k] : uk, wl = update ? w[k + 1] : ul;
    const L dk = diagonal(k);
    S y = a[k + 1];
    if (update) to_a[k + 1] = y = minus_outer(minus_outer(y, vl, wk), wl, vk);
    const L dl = diagonal(k + 1);
    S sum_k = conj_fma(y, ul, fma(uk, dk, p[k])), sum_l = fma(ul, dl, fma(y, uk, p[k + 1]));
    for (int i = k + 2; i < n; i++) {
      S x = a[i];
      y = b[i];
      if (update) {
        const S vi = v[i], wi = w[i];
        x = minus_outer(minus_outer(x, vi, wk), wi, vk);
        y = minus_outer(minus_outer(y, vi, wl), wi, vl);
        to_a[i] = x, to_b[i] = y;
      }
      const S ui = u[i];
      sum_k = conj_fma(x, ui, sum_k);
      sum_l = conj_fma(y, ui, sum_l);
      p[i] = fma(y, ul, fma(x, uk, p[i]));
    }
    p[k] = sum_k, p[k + 1] = sum_l;
  }
  if (k < n) p[k] = fma(u[k], diagonal(k), p[k]);
}

// X: packed lower triangle; A: the same, turned into reflectors, may be X; d: n, e: n − 1, tau: n − 1; work: 2 n.
template <class S>
void tridiagonalise(int n, const S* X, S* A, typename S::real* d, typename S::real* e, S* tau, S* work) {
  using T = typename S::scalar;
  using L = typename S::real;
  S *w = work, *p = work + n;
  const int steps = reflectors<S>(n);
  for (int j = 0; j < steps; j++) {
    const S *from = j > 1 ? A : X, *x = from + column(n, j), *v = A + column(n, j > 0 ? j - 1 : 0);
    S* u = A + column(n, j);
    if (j == 0)
      for (int i = 0; i < n; i++) u[i] = x[i];
    else
      for (int i = j; i < n; i++) u[i] = minus_outer(minus_outer(x[i], v[i], w[j]), w[i], v[j]);
    d[j] = real_part(u[j]);
    reflector(n, j, u, tau[j], e[j]);
    if (j > 0) update_and_multiply<true>(n, j + 1, from, A, v, w, u, p);
    else update_and_multiply<false>(n, j + 1, from, A, v, w, u, p);
    for (int i = j + 1; i < n; i++) p[i] = p[i] * tau[j];
    const S inner = sum_of<S>(j + 1, n, [&](int i, S sum) { return conj_fma(p[i], u[i], sum); });  // pᴴv
    const S half = tau[j] * inner * L(T(-0.5));
    for (int i = j + 1; i < n; i++) w[i] = fma(half, u[i], p[i]);
  }
  const S *from = steps > 1 ? A : X, *v = A + column(n, steps > 0 ? steps - 1 : 0);
  for (int i = steps; i < n; i++) {
    for (int j = steps; j <= i; j++) {
      S a = from[column(n, j) + i];
      if (steps > 0) a = minus_outer(minus_outer(a, v[i], w[j]), w[i], v[j]);
      if (j == i) d[i] = real_part(a);
      else if (j == i - 1) e[j] = real_part(a), tau[j] = S(T(0));
    }
  }
}

// z ← z − s v (vᴴz) for reflector j
template <class S>
PMAF_INLINE void reflect(int n, int j, const S* A, S s, S* z) {
  const S* v = A + column(n, j);
  S inner = z[j + 1] + sum_of<S>(j + 2, n, [&](int i, S sum) { return conj_fma(v[i], z[i], sum); });
  inner = inner * s;
  z[j + 1] -= inner;
  for (int i = j + 2; i < n; i++) z[i] = fnma(inner, v[i], z[i]);
}

// z ← Q z
template <class S>
void apply_q(int n, const S* A, const S* tau, S* z) {
  for (int j = reflectors<S>(n) - 1; j >= 0; j--) reflect(n, j, A, tau[j], z);
}

// z ← Qᴴ z
template <class S>
void apply_q_adjoint(int n, const S* A, const S* tau, S* z) {
  for (int j = 0; j < reflectors<S>(n); j++) reflect(n, j, A, conj(tau[j]), z);
}

}  // namespace PMAF_ISA
}  // namespace pmaf
