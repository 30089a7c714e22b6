// The tridiagonalisation of tridiagonal.h for one real matrix, with its rows in SIMD lanes: the same operations in the
// same order, so that the result is the same to the last bit, and which of the two is used may depend on the batch.
//
// Updates are elementwise, and in p = X u the entry pᵢ = Σ_k X_ik u_k is summed in the order of k there too; so a pass that
// adds column k (which is row k) after column k − 1 sums alike. It needs both triangles, and both have the rounding of the
// lower one: X_ik − v_i w_k − w_i v_k for i ≥ k.
#pragma once

#include "tridiagonal.h"

namespace pmaf {
namespace PMAF_ISA {

template <class T>
struct Rowwise {
  static constexpr int W = full_width<T>;
  using L = Lanes<T, W>;
  using One = Lanes<T, 1>;

  static constexpr std::ptrdiff_t pitch(std::ptrdiff_t n) { return (n + W - 1) / W * W; }
  static PMAF_INLINE T fma1(T a, T b, T c) { return fma(One(a), One(b), One(c))[0]; }

  int n;
  T *X, *v, *w, *u, *p;  // n rows of `pitch` numbers, and one each

  Rowwise(int n_, T* matrix, T* vectors) : n(n_), X(matrix) {
    const std::ptrdiff_t length = pitch(n);
    v = vectors, w = v + length, u = w + length, p = u + length;
    for (std::ptrdiff_t i = 0; i < 4 * length; i++) vectors[i] = T(0);
  }

  // Columns b … b + W − 1 of R updated rows from k on; `part`: −1 left of the diagonal, 1 right of it, 0 across.
  template <bool update, int R, int part>
  PMAF_INLINE void block(int k, std::ptrdiff_t b, const L* vk, const L* wk, const L* uk, const L& index) {
    const std::ptrdiff_t length = pitch(n);
    L sum = L::load(p + b), vi, wi;
    if (update) vi = L::load(v + b), wi = L::load(w + b);
    for (int r = 0; r < R; r++) {
      T* entry = X + (k + r) * length + b;
      L x = L::load(entry);
      if constexpr (update) {
        if constexpr (part < 0) x = fma(wk[r], vi, fma(vk[r], wi, x));
        else if constexpr (part > 0) x = fma(vk[r], wi, fma(wk[r], vi, x));
        else {
          const auto left = index < L(static_cast<T>(k + r - b));
          x = select(left, fma(wk[r], vi, fma(vk[r], wi, x)), fma(vk[r], wi, fma(wk[r], vi, x)));
        }
        x.store(entry);
      }
      sum = fma(x, uk[r], sum);
    }
    sum.store(p + b);
  }

  template <bool update, int R>
  PMAF_INLINE void some_rows(int k, std::ptrdiff_t begin, const L& index) {
    L vk[R], wk[R], uk[R];
    for (int r = 0; r < R; r++) {
      uk[r] = L(u[k + r]);
      if (update) vk[r] = L(-v[k + r]), wk[r] = L(-w[k + r]);
    }
    std::ptrdiff_t b = begin;
    for (; b + W <= k; b += W) block<update, R, -1>(k, b, vk, wk, uk, index);
    for (; b < k + R; b += W) block<update, R, 0>(k, b, vk, wk, uk, index);
    for (; b < n; b += W) block<update, R, 1>(k, b, vk, wk, uk, index);
  }

  // X ← X − v wᵀ − w vᵀ and p = X u from `first` on.
  template <bool update>
  void update_and_multiply(int first) {
    L index;
    for (int l = 0; l < W; l++) index.v[l] = T(l);
    const std::ptrdiff_t begin = first / W * W;
    for (std::ptrdiff_t b = begin; b < n; b += W) L(T(0)).store(p + b);
    int k = first;
    for (; k + 4 <= n; k += 4) some_rows<update, 4>(k, begin, index);
    for (; k < n; k++) some_rows<update, 1>(k, begin, index);
  }

  // Entry (j, i), i ≥ j, of the rows that the last step left.
  PMAF_INLINE T current(int j, int i) const {
    return fma1(-w[i], v[j], fma1(-v[i], w[j], X[j * pitch(n) + i]));
  }

  // Calls diagonal(j, d), beside(j, e, τ) and below(j, i, v_i) with the results.
  template <class Diagonal, class Beside, class Below>
  void tridiagonalise(Diagonal diagonal, Beside beside, Below below) {
    const int steps = n > 2 ? n - 2 : 0;
    for (int j = 0; j < steps; j++) {
      const std::ptrdiff_t begin = (j + 1) / W * W;
      diagonal(j, current(j, j));
      for (std::ptrdiff_t i = begin; i <= j; i++) u[i] = T(0);
      for (int i = j + 1; i < n; i++) u[i] = current(j, i);
      const T squares = sum_of<T>(j + 2, n, [&](int i, T sum) { return fma1(u[i], u[i], sum); });
      const T x0 = u[j + 1];
      const bool trivial = squares <= negligible<T>;
      const T norm = sqrt(One(fma1(x0, x0, squares)))[0];
      const T beta = trivial ? x0 : -copysign(One(norm), One(x0))[0];
      const T difference = beta - x0, tau = trivial ? T(0) : difference * (T(1) / beta);
      const T inverse = trivial ? T(0) : -difference * (T(1) / (difference * difference));
      beside(j, beta, tau);
      for (std::ptrdiff_t b = begin; b < n; b += W) (L::load(u + b) * L(inverse)).store(u + b);
      u[j + 1] = T(1);
      for (int i = j + 2; i < n; i++) below(j, i, u[i]);
      if (j > 0) update_and_multiply<true>(j + 1);
      else update_and_multiply<false>(j + 1);
      for (std::ptrdiff_t i = begin; i <= j; i++) p[i] = T(0);
      for (std::ptrdiff_t b = begin; b < n; b += W) (L::load(p + b) * L(tau)).store(p + b);
      const T inner = sum_of<T>(j + 1, n, [&](int i, T sum) { return fma1(p[i], u[i], sum); });
      const L half(tau * inner * T(-0.5));
      for (std::ptrdiff_t b = begin; b < n; b += W) fma(half, L::load(u + b), L::load(p + b)).store(w + b);
      T* swap = v;
      v = u, u = swap;
    }
    for (int j = steps; j < n; j++) {
      diagonal(j, current(j, j));
      if (j + 1 < n) beside(j, current(j, j + 1), T(0));
    }
  }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
