// The same work for one larger real matrix at a time: its rows lie in SIMD lanes. Used from a size on that depends on the
// type and the instruction set alone.
//
// A holds the lower triangle, rows `pitch` numbers apart. Vectors are `pitch` long and zero outside what counts, so that
// loops may start at a multiple of W; beyond the diagonal a mask hides what is not part of the matrix.
#pragma once

#include "tridiagonal.h"

namespace pmaf {
namespace PMAF_ISA {

template <class T>
struct ByRows {
  static constexpr int W = full_width<T>;
  using L = Lanes<T, W>;
  using One = Lanes<T, 1>;

  static constexpr std::ptrdiff_t pitch(std::ptrdiff_t n) { return (n + W - 1) / W * W + W; }

  static PMAF_INLINE T fma1(T a, T b, T c) { return fma(One(a), One(b), One(c))[0]; }

  // The lanes l with l < count.
  static PMAF_INLINE typename L::mask first_lanes(std::ptrdiff_t count) {
    L index;
    for (int l = 0; l < W; l++) index.v[l] = T(l);
    return index < L(static_cast<T>(count));
  }

  // In a fixed order: halves upon each other.
  static PMAF_INLINE T sum(L x) {
    T part[W];
    x.store(part);
    for (int width = W / 2; width > 0; width /= 2)
      for (int l = 0; l < width; l++) part[l] += part[l + width];
    return part[0];
  }

  // The largest |x|, and 0·Σx, which is not zero where an entry is not finite.
  static void scan(const T* x, std::ptrdiff_t count, T& most, T& poison) {
    L large(T(0)), sick(T(0));
    std::ptrdiff_t i = 0;
    for (; i + W <= count; i += W) {
      const L a = L::load(x + i);
      large = max(abs(a), large);
      sick = fma(a, L(T(0)), sick);
    }
    most = T(0), poison = sum(sick);
    for (int l = 0; l < W; l++) most = large[l] > most ? large[l] : most;
    for (; i < count; i++) {
      const T a = x[i] < 0 ? -x[i] : x[i];
      most = a > most ? a : most;
      poison += x[i] * T(0);
    }
  }

  // A ← ½(X + Xᵀ)·one·two in the lower triangle, tile by tile; Σ|X − Xᵀ|² and Σ|A|² over the lower triangle, scaled.
  static void symmetrise(int n, const T* X, T one, T two, T* A, T& skew, T& squares) {
    const std::ptrdiff_t p = pitch(n);
    L apart(T(0)), size(T(0));
    skew = squares = T(0);
    for (int bi = 0; bi < n; bi += W)
      for (int bj = 0; bj <= bi; bj += W) {
        if (bi + W <= n) {
          L across[W];
          for (int r = 0; r < W; r++) across[r] = L::load(X + std::ptrdiff_t(bj + r) * n + bi);
          transpose(across);
          const L weight(bi == bj ? T(0.5) : T(1));
          for (int r = 0; r < W; r++) {
            const L a = L::load(X + std::ptrdiff_t(bi + r) * n + bj) * L(one) * L(two), b = across[r] * L(one) * L(two);
            const L middle = (a + b) * L(T(0.5));
            apart = fma((a - b) * weight, a - b, apart);
            size = fma(middle * weight, middle, size);
            middle.store(A + (bi + r) * p + bj);
          }
          continue;
        }
        for (int i = bi; i < n; i++)
          for (int j = bj; j < bj + W && j <= i; j++) {
            const T a = X[std::ptrdiff_t(i) * n + j] * one * two, b = X[std::ptrdiff_t(j) * n + i] * one * two;
            const T middle = (a + b) * T(0.5);
            skew = fma1(a - b, a - b, skew);
            squares = fma1(middle, middle, squares);
            A[i * p + j] = middle;
          }
      }
    skew += sum(apart), squares += sum(size);
  }

  // Rows i … i + R − 1 of update_and_multiply.
  template <bool update, int R>
  static PMAF_INLINE void some_rows(int i, int begin, int first, std::ptrdiff_t pitch, T* A, const T* v, const T* w,
                                    const T* u, T* p) {
    L sums[R], vi[R], wi[R], ui[R];
    for (int r = 0; r < R; r++) sums[r] = L(T(0)), ui[r] = L(u[i + r]);
    if (update)
      for (int r = 0; r < R; r++) vi[r] = L(-v[i + r]), wi[r] = L(-w[i + r]);
    T* rows = A + i * pitch;
    int k = begin;
    for (; k + W <= i; k += W) {
      const L uk = L::load(u + k);
      L pk = L::load(p + k), vk, wk;
      if (update) vk = L::load(v + k), wk = L::load(w + k);
      for (int r = 0; r < R; r++) {
        L x = L::load(rows + r * pitch + k);
        if (update) {
          x = fma(wi[r], vk, fma(vi[r], wk, x));
          x.store(rows + r * pitch + k);
        }
        sums[r] = fma(x, uk, sums[r]);
        pk = fma(x, ui[r], pk);
      }
      pk.store(p + k);
    }
    if (k < i) {
      const auto inside = first_lanes(i - k);
      const L uk = L::load(u + k);
      L pk = L::load(p + k), vk, wk;
      if (update) vk = L::load(v + k), wk = L::load(w + k);
      for (int r = 0; r < R; r++) {
        L x = L::load(rows + r * pitch + k);
        if (update) {
          x = select(inside, fma(wi[r], vk, fma(vi[r], wk, x)), x);
          x.store(rows + r * pitch + k);
        }
        x = select(inside, x, L(T(0)));
        sums[r] = fma(x, uk, sums[r]);
        pk = fma(x, ui[r], pk);
      }
      pk.store(p + k);
    }
    for (int r = 0; r < R; r++) {  // the triangle at the diagonal
      T total = sum(sums[r]);
      for (int c = 0; c <= r; c++) {
        const int at = i + c;
        if (at < first) continue;
        T& a = rows[r * pitch + at];
        if (update) a = fma1(-w[i + r], v[at], fma1(-v[i + r], w[at], a));
        total = fma1(a, u[at], total);
        if (c < r) p[at] = fma1(a, u[i + r], p[at]);
      }
      p[i + r] += total;
    }
  }

  // X ← X − v wᵀ − w vᵀ and p = X u from `first` on; see tridiagonal.h.
  template <bool update>
  static void update_and_multiply(int n, int first, T* A, const T* v, const T* w, const T* u, T* p) {
    const std::ptrdiff_t stride = pitch(n);
    const int begin = first / W * W;
    for (std::ptrdiff_t k = begin; k < stride; k++) p[k] = T(0);
    int i = first;
    for (; i < n && i % 4 != 0; i++) some_rows<update, 1>(i, begin, first, stride, A, v, w, u, p);
    for (; i + 4 <= n; i += 4) some_rows<update, 4>(i, begin, first, stride, A, v, w, u, p);
    for (; i < n; i++) some_rows<update, 1>(i, begin, first, stride, A, v, w, u, p);
  }

  // A: lower triangle, destroyed; F: the factor; work: 4 vectors of `pitch`.
  static void tridiagonalise(int n, T* A, T* F, T* work) {
    const std::ptrdiff_t stride = pitch(n);
    T *v = work, *w = work + stride, *next_v = work + 2 * stride, *p = work + 3 * stride;
    for (std::ptrdiff_t i = 0; i < 4 * stride; i++) work[i] = T(0);
    T* taus = F + triangle(n);
    for (T* rest = taus; rest < F + eigen_factor_size(n); rest++) *rest = T(0);
    for (int j = 0; j < n - 2; j++) {
      // Column j as the last step left it, into next_v.
      const T vj = v[j], wj = w[j];
      const auto current = [&](int i) { return fma1(-w[i], vj, fma1(-v[i], wj, A[i * stride + j])); };
      T* below = F + column(n, j);
      below[j] = current(j);
      const T x0 = current(j + 1);
      const int begin = (j + 1) / W * W;
      for (int i = begin; i <= j + 1; i++) next_v[i] = T(0);
      for (int i = j + 2; i < n; i++) next_v[i] = current(i);
      L squares_of(T(0));
      for (int i = begin; i < n; i += W) {
        const L x = L::load(next_v + i);
        squares_of = fma(x, x, squares_of);
      }
      const T squares = sum(squares_of);
      const bool trivial = squares <= negligible<T>;
      const T norm = sqrt(One(fma1(x0, x0, squares)))[0];
      const T beta = trivial ? x0 : (x0 < 0 ? norm : -norm);
      const T tau = trivial ? T(0) : (beta - x0) * (T(1) / beta), inverse = trivial ? T(0) : T(1) / (x0 - beta);
      for (int i = begin; i < n; i += W) (L::load(next_v + i) * L(inverse)).store(next_v + i);
      for (int i = j + 2; i < n; i++) below[i] = next_v[i];
      next_v[j + 1] = T(1);
      below[j + 1] = beta;
      taus[j] = tau;
      if (j > 0) update_and_multiply<true>(n, j + 1, A, v, w, next_v, p);
      else update_and_multiply<false>(n, j + 1, A, v, w, next_v, p);
      for (int i = begin; i <= j; i++) p[i] = T(0);
      L inner_of(T(0));
      for (int i = begin; i < n; i += W) {
        const L x = L::load(p + i) * L(tau);
        x.store(p + i);
        inner_of = fma(x, L::load(next_v + i), inner_of);
      }
      const L half(tau * sum(inner_of) * T(-0.5));
      for (int i = begin; i < n; i += W) fma(half, L::load(next_v + i), L::load(p + i)).store(w + i);
      T* swap = v;
      v = next_v, next_v = swap;
    }
    for (int i = n > 2 ? n - 2 : 0; i < n; i++)
      for (int j = n > 2 ? n - 2 : 0; j <= i; j++) {
        const T x = n > 2 ? fma1(-w[i], v[j], fma1(-v[i], w[j], A[i * stride + j])) : A[i * stride + j];
        F[column(n, j) + i] = x;  // d on the diagonal, e below it
      }
  }

  // z ← z − τ v (vᵀz) for reflector j of a factor.
  static PMAF_INLINE void reflect(int n, const T* F, int j, T* z) {
    const T tau = F[triangle(n) + j];
    const T* v = F + column(n, j);
    L inner(T(0));
    int i = j + 2;
    for (; i + W <= n; i += W) inner = fma(L::load(v + i), L::load(z + i), inner);
    const auto inside = first_lanes(n - i);
    const L tail = select(inside, L::load(v + i), L(T(0)));  // what follows is the next column
    inner = fma(tail, L::load(z + i), inner);
    const T s = -(tau * (z[j + 1] + sum(inner)));
    z[j + 1] += s;
    for (i = j + 2; i + W <= n; i += W) fma(L(s), L::load(v + i), L::load(z + i)).store(z + i);
    fma(L(s), tail, L::load(z + i)).store(z + i);
  }
  static void apply_q(int n, const T* F, T* z) {
    for (int j = n - 3; j >= 0; j--) reflect(n, F, j, z);
  }
  static void apply_q_adjoint(int n, const T* F, T* z) {
    for (int j = 0; j < n - 2; j++) reflect(n, F, j, z);
  }

  // y = ½(X + Xᵀ)·one·two·v in double precision; v and y are padded by W, and v is multiplied by `one` on the way.
  static void multiply(int n, const T* X, double one, double two, double* v, double* y) {
    constexpr int Wd = full_width<double>;
    using D = Lanes<double, Wd>;
    for (int i = 0; i < n; i++) v[i] *= one, y[i] = 0;
    for (int i = 0; i < n; i++) {
      const T* x = X + std::ptrdiff_t(i) * n;
      const D vi(v[i]);
      D total(0.0);
      int k = 0;
      for (; k + Wd <= n; k += Wd) {
        const D a = load_as<double, Wd>(x + k);
        total = fma(a, D::load(v + k), total);
        fma(a, vi, D::load(y + k)).store(y + k);
      }
      double rest = ByRows<double>::sum(total);
      for (; k < n; k++) {
        const double a = static_cast<double>(x[k]);
        rest = ByRows<double>::fma1(a, v[k], rest);
        y[k] = ByRows<double>::fma1(a, v[i], y[k]);
      }
      y[i] += rest;
    }
    for (int i = 0; i < n; i++) y[i] *= 0.5 * two;
  }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
