// The tridiagonalisation of tridiagonal.h for one matrix, with its rows in SIMD lanes: the same operations in the same
// order, so that the result is the same to the last bit, and which of the two is used may depend on the batch.
//
// Row k in memory holds column k of X. Updates are elementwise, and in p = X u the entry pᵢ = Σ_k X_ik u_k is summed in the
// order of k there too; so a pass that adds column k after column k − 1 sums alike. It needs both triangles, and both have the
// rounding of the lower one: X_ik − v_i w̄_k − w_i v̄_k for i ≥ k.
//
// A vector of `pitch` complex numbers is that of their real parts followed by that of their imaginary parts.
#pragma once

#include "batch.h"
#include "tridiagonal.h"

namespace pmaf {
namespace PMAF_ISA {

template <class T, bool is_complex>
struct Rowwise {
  static constexpr int W = full_width<T>, parts = is_complex ? 2 : 1, rows_at_once = is_complex ? 2 : 4;
  using L = Lanes<T, W>;
  using S = typename LanesOf<T, is_complex, W>::type;
  using One = typename LanesOf<T, is_complex, 1>::type;
  using RealOne = Lanes<T, 1>;

  static constexpr std::ptrdiff_t pitch(std::ptrdiff_t n) { return (n + W - 1) / W * W; }

  int n;
  std::ptrdiff_t length;
  T *X, *v, *w, *u, *p;  // n rows of `pitch` numbers, and one each

  Rowwise(int n_, T* matrix, T* vectors) : n(n_), length(pitch(n_)), X(matrix) {
    const std::ptrdiff_t numbers = length * parts;
    v = vectors, w = v + numbers, u = w + numbers, p = u + numbers;
    for (std::ptrdiff_t i = 0; i < 4 * numbers; i++) vectors[i] = T(0);
  }

  T* row(std::ptrdiff_t k) const { return X + k * length * parts; }

  // As many numbers of a vector as N has, from i on.
  template <class N>
  PMAF_INLINE N get(const T* x, std::ptrdiff_t i) const {
    if constexpr (N::width == 1 && is_complex) return {RealOne(x[i]), RealOne(x[length + i])};
    else if constexpr (N::width == 1) return N(x[i]);
    else if constexpr (is_complex) return {L::load(x + i), L::load(x + length + i)};
    else return N::load(x + i);
  }
  template <class N>
  PMAF_INLINE void put(T* x, std::ptrdiff_t i, N a) const {
    if constexpr (N::width == 1 && is_complex) x[i] = a.re[0], x[length + i] = a.im[0];
    else if constexpr (N::width == 1) x[i] = a[0];
    else if constexpr (is_complex) a.re.store(x + i), a.im.store(x + length + i);
    else a.store(x + i);
  }
  PMAF_INLINE One one(const T* x, std::ptrdiff_t i) const { return get<One>(x, i); }
  PMAF_INLINE static S everywhere(One a) {
    if constexpr (is_complex) return {L(a.re[0]), L(a.im[0])};
    else return L(a[0]);
  }
  PMAF_INLINE static S real_where(typename L::mask m, S a) {
    if constexpr (is_complex) a.im = select(m, L(T(0)), a.im);
    return a;
  }

  // What an entry left or right of the diagonal becomes; vk and wk are those of its row, negated.
  PMAF_INLINE static S left(S x, S vk, S wk, S vi, S wi) { return conj_fma(wk, vi, conj_fma(vk, wi, x)); }
  template <class N>
  PMAF_INLINE static N right(N x, N vk, N wk, N vi, N wi) {
    return fma_conj(wi, vk, fma_conj(vi, wk, x));
  }

  // Columns b … b + W − 1 of R updated rows from k on; `part`: −1 left of the diagonal, 1 right of it, 0 across.
  template <bool update, int R, int part>
  PMAF_INLINE void block(int k, std::ptrdiff_t b, const S* vk, const S* wk, const S* uk, const L& index) {
    S sum = get<S>(p, b), vi, wi;
    if (update) vi = get<S>(v, b), wi = get<S>(w, b);
    for (int r = 0; r < R; r++) {
      T* entries = row(k + r);
      S x = get<S>(entries, b);
      if constexpr (update) {
        if constexpr (part < 0) x = left(x, vk[r], wk[r], vi, wi);
        else if constexpr (part > 0) x = right(x, vk[r], wk[r], vi, wi);
        else {
          const L diagonal(static_cast<T>(k + r - b));
          const S beside = select(index < diagonal, left(x, vk[r], wk[r], vi, wi), right(x, vk[r], wk[r], vi, wi));
          x = real_where(index == diagonal, beside);
        }
        put(entries, b, x);
      }
      sum = fma(x, uk[r], sum);
    }
    put(p, b, sum);
  }

  template <bool update, int R>
  PMAF_INLINE void some_rows(int k, std::ptrdiff_t begin, const L& index) {
    S vk[R], wk[R], uk[R];
    for (int r = 0; r < R; r++) {
      uk[r] = everywhere(one(u, k + r));
      if (update) vk[r] = everywhere(-one(v, k + r)), wk[r] = everywhere(-one(w, k + r));
    }
    std::ptrdiff_t b = begin;
    for (; b + W <= k; b += W) block<update, R, -1>(k, b, vk, wk, uk, index);
    for (; b < k + R; b += W) block<update, R, 0>(k, b, vk, wk, uk, index);
    for (; b < n; b += W) block<update, R, 1>(k, b, vk, wk, uk, index);
  }

  // X ← X − v wᴴ − w vᴴ and p = X u from `first` on.
  template <bool update>
  void update_and_multiply(int first) {
    L index;
    for (int l = 0; l < W; l++) index.v[l] = T(l);
    const std::ptrdiff_t begin = first / W * W;
    for (std::ptrdiff_t b = begin; b < n; b += W) put(p, b, S(T(0)));
    int k = first;
    for (; k + rows_at_once <= n; k += rows_at_once) some_rows<update, rows_at_once>(k, begin, index);
    for (; k < n; k++) some_rows<update, 1>(k, begin, index);
  }

  // Entries (i, j), i ≥ j, as the last step leaves them; vj and wj are entry j of v and w, negated.
  template <class N>
  PMAF_INLINE N current(int j, std::ptrdiff_t i, N vj, N wj) const {
    return right(get<N>(row(j), i), vj, wj, get<N>(v, i), get<N>(w, i));
  }

  // Calls diagonal(j, d), beside(j, e, τ) and below(j, i, v_i) with the results.
  template <class Diagonal, class Beside, class Below>
  void tridiagonalise(Diagonal diagonal, Beside beside, Below below) {
    const int steps = reflectors<S>(n);
    for (int j = 0; j < steps; j++) {
      const std::ptrdiff_t begin = (j + 1) / W * W;
      const One vj = -one(v, j), wj = -one(w, j);
      diagonal(j, real_part(current(j, j, vj, wj))[0]);
      const S vjs = everywhere(vj), wjs = everywhere(wj);
      for (std::ptrdiff_t b = begin; b < n; b += W) put(u, b, current(j, b, vjs, wjs));
      for (std::ptrdiff_t i = begin; i <= j; i++) put(u, i, One(T(0)));
      const Reflector<One> found =
          reflector_of(one(u, j + 1), sum_of<RealOne>(j + 2, n, [&](int i, RealOne sum) { return add_square(one(u, i), sum); }));
      beside(j, found.beta[0], found.tau);
      const S inverse = everywhere(found.inverse), tau = everywhere(found.tau);
      for (std::ptrdiff_t b = begin; b < n; b += W) put(u, b, get<S>(u, b) * inverse);
      put(u, j + 1, One(T(1)));
      for (int i = j + 2; i < n; i++) below(j, i, one(u, i));
      if (j > 0) update_and_multiply<true>(j + 1);
      else update_and_multiply<false>(j + 1);
      for (std::ptrdiff_t i = begin; i <= j; i++) put(p, i, One(T(0)));
      for (std::ptrdiff_t b = begin; b < n; b += W) put(p, b, get<S>(p, b) * tau);
      const One inner = sum_of<One>(j + 1, n, [&](int i, One sum) { return conj_fma(one(p, i), one(u, i), sum); });
      const S half = everywhere(found.tau * inner * RealOne(T(-0.5)));
      for (std::ptrdiff_t b = begin; b < n; b += W) put(w, b, fma(half, get<S>(u, b), get<S>(p, b)));
      T* swap = v;
      v = u, u = swap;
    }
    for (int j = steps; j < n; j++) {
      const One vj = -one(v, j), wj = -one(w, j);
      diagonal(j, real_part(current(j, j, vj, wj))[0]);
      if (j + 1 < n) beside(j, real_part(current(j, j + 1, vj, wj))[0], One(T(0)));
    }
  }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
