// Householder tridiagonalisation of Hermitian matrices in lanes, X = Q T Qᴴ with T real.
//
// Step j maps x = X[j+1:, j] to (β, 0, …) by H = I − τ v vᴴ with v₀ = 1, as LAPACK's hetd2 does:
//
//     β = −sign(Re x₀)‖x‖,   τ = (β − x₀)/β,   v = x/(x₀ − β) below the first,
//     p = τ X v,   w = p − ½ τ (pᴴv) v,   X ← X − v wᴴ − w vᴴ,
//
// and Q = H₀ H₁ …. The update of one step and the product of the next share one pass over the rows, two rows at a time.
// X lies in its lower triangle, row by row without gaps (packed). Entries are expected to be about one in size: columns
// whose squares vanish beside that are taken for zero, which changes X by less than its rounding.
//
// The factor of an item is an n×n matrix of the item's type, in units of its own: row j holds d at its diagonal, e right of
// it, and v (its one left out) from there on; τ stands below the diagonal, zeros elsewhere.
#pragma once

#include "lanes.h"

namespace pmaf {
namespace PMAF_ISA {

// Where row i of a packed lower triangle begins.
constexpr std::ptrdiff_t row(std::ptrdiff_t i) { return i * (i + 1) / 2; }

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

// The reflector of the column x₀, x: returns τ and β and turns x into v.
template <class S>
PMAF_INLINE void reflector(int n, int j, S* A, S& tau, typename S::real& beta) {
  using L = typename S::real;
  using T = typename L::scalar;
  const L squares = sum_of<L>(j + 2, n, [&](int i, L sum) { return add_square(A[row(i) + j], sum); });
  const S x0 = A[row(j + 1) + j];
  const L x0_real = real_part(x0);
  const auto trivial = squares + (add_square(x0, L(T(0))) - x0_real * x0_real) <= L(negligible<T>);
  const L norm = sqrt(add_square(x0, squares));
  beta = select(trivial, x0_real, -copysign(norm, x0_real));
  const L safe = select(trivial, L(T(1)), beta);
  const S difference = S(safe) - x0;
  tau = select(trivial, S(T(0)), difference * (L(T(1)) / safe));
  // 1/(x₀ − β)
  const L size = add_square(difference, L(T(0)));
  const S inverse = select(trivial, S(T(0)), -conj(difference) * (L(T(1)) / select(trivial, L(T(1)), size)));
  for (int i = j + 2; i < n; i++) A[row(i) + j] = A[row(i) + j] * inverse;
}

// a − x·conj(y)
template <class S>
PMAF_INLINE S minus_outer(S a, S x, S y) {
  return fnma(x, conj(y), a);
}

// One pass over the rows from `first` on: X ← X − v wᴴ − w vᴴ (the last step's), p = X u (p and u from `first` on).
template <bool update, class S>
void update_and_multiply(int n, int first, S* A, const S* v, const S* w, const S* u, S* p) {
  using T = typename S::scalar;
  using L = typename S::real;
  const auto diagonal = [&](int i) {
    S& a = A[row(i) + i];
    if (update) a = S(real_part(minus_outer(minus_outer(a, v[i], w[i]), w[i], v[i])));
    return real_part(a);
  };
  for (int i = first; i < n; i++) p[i] = S(T(0));
  int i = first;
  for (; i + 1 < n; i += 2) {
    S* a = A + row(i);
    S* b = A + row(i + 1);
    const S ui = u[i], uj = u[i + 1];
    const S vi = update ? v[i] : ui, vj = update ? v[i + 1] : ui, wi = update ? w[i] : ui, wj = update ? w[i + 1] : ui;
    S sum_i(T(0)), sum_j(T(0));
    for (int k = first; k < i; k++) {
      S x = a[k], y = b[k];
      if (update) {
        const S vk = v[k], wk = w[k];
        x = minus_outer(minus_outer(x, vi, wk), wi, vk);
        y = minus_outer(minus_outer(y, vj, wk), wj, vk);
        a[k] = x, b[k] = y;
      }
      const S uk = u[k];
      sum_i = fma(x, uk, sum_i);
      sum_j = fma(y, uk, sum_j);
      p[k] = conj_fma(y, uj, conj_fma(x, ui, p[k]));
    }
    const L di = diagonal(i);
    S y = b[i];
    if (update) b[i] = y = minus_outer(minus_outer(y, vj, wi), wj, vi);
    const L dj = diagonal(i + 1);
    p[i] = conj_fma(y, uj, fma(ui, di, sum_i));
    p[i + 1] = fma(uj, dj, fma(y, ui, sum_j));
  }
  if (i < n) {
    S* a = A + row(i);
    S sum(T(0));
    for (int k = first; k < i; k++) {
      S x = a[k];
      if (update) a[k] = x = minus_outer(minus_outer(x, v[i], w[k]), w[i], v[k]);
      sum = fma(x, u[k], sum);
      p[k] = conj_fma(x, u[i], p[k]);
    }
    p[i] = fma(u[i], diagonal(i), sum);
  }
}

// A: packed lower triangle, turned into reflectors; d: n, e: n − 1, tau: n − 1; work: 4 n.
template <class S>
void tridiagonalise(int n, S* A, typename S::real* d, typename S::real* e, S* tau, S* work) {
  using T = typename S::scalar;
  using L = typename S::real;
  S *v = work, *w = work + n, *next_v = work + 2 * n, *p = work + 3 * n;
  const int steps = reflectors<S>(n);
  for (int j = 0; j < steps; j++) {
    if (j > 0) {
      for (int i = j + 1; i < n; i++) {
        S& a = A[row(i) + j];
        a = minus_outer(minus_outer(a, v[i], w[j]), w[i], v[j]);
      }
      S& a = A[row(j) + j];
      a = S(real_part(minus_outer(minus_outer(a, v[j], w[j]), w[j], v[j])));
    }
    d[j] = real_part(A[row(j) + j]);
    reflector(n, j, A, tau[j], e[j]);
    next_v[j + 1] = S(T(1));
    for (int i = j + 2; i < n; i++) next_v[i] = A[row(i) + j];
    if (j > 0) update_and_multiply<true>(n, j + 1, A, v, w, next_v, p);
    else update_and_multiply<false>(n, j + 1, A, v, w, next_v, p);
    for (int i = j + 1; i < n; i++) p[i] = p[i] * tau[j];
    const S inner = sum_of<S>(j + 1, n, [&](int i, S sum) { return conj_fma(p[i], next_v[i], sum); });  // pᴴv
    const S half = tau[j] * inner * L(T(-0.5));
    for (int i = j + 1; i < n; i++) w[i] = fma(half, next_v[i], p[i]);
    S* swap = v;
    v = next_v, next_v = swap;
  }
  for (int i = steps; i < n; i++) {
    for (int j = steps; j <= i; j++) {
      S& a = A[row(i) + j];
      if (steps > 0) a = minus_outer(minus_outer(a, v[i], w[j]), w[i], v[j]);
      if (j == i) d[i] = real_part(a);
      else if (j == i - 1) e[j] = real_part(a), tau[j] = S(T(0));
    }
  }
}

// z ← Q z
template <class S>
void apply_q(int n, const S* A, const S* tau, S* z) {
  for (int j = reflectors<S>(n) - 1; j >= 0; j--) {
    S inner = z[j + 1] + sum_of<S>(j + 2, n, [&](int i, S sum) { return conj_fma(A[row(i) + j], z[i], sum); });
    inner = inner * tau[j];
    z[j + 1] -= inner;
    for (int i = j + 2; i < n; i++) z[i] = fnma(inner, A[row(i) + j], z[i]);
  }
}

// z ← Qᴴ z
template <class S>
void apply_q_adjoint(int n, const S* A, const S* tau, S* z) {
  for (int j = 0; j < reflectors<S>(n); j++) {
    S inner = z[j + 1] + sum_of<S>(j + 2, n, [&](int i, S sum) { return conj_fma(A[row(i) + j], z[i], sum); });
    inner = inner * conj(tau[j]);
    z[j + 1] -= inner;
    for (int i = j + 2; i < n; i++) z[i] = fnma(inner, A[row(i) + j], z[i]);
  }
}

}  // namespace PMAF_ISA
}  // namespace pmaf
