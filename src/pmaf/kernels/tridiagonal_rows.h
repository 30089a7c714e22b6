// X = Q T Qᵀ for one large matrix, its rows in lanes: T tridiagonal, Q = H₀H₁…Hₙ₋₃ a product of reflections
// Hⱼ = I − vⱼvⱼᵀ, ‖vⱼ‖² = 2 (or vⱼ = 0).
//
// Reflection j maps column j below the diagonal, x, to αe₁ with α = −sign(x₀)‖x‖: vⱼ = (x − αe₁)/√(‖x‖(‖x‖ + |x₀|)).
// With y = Xv and w = y − ½(vᵀy)v the rest of the matrix becomes X − vwᵀ − wvᵀ; the next product with the changed matrix is
// taken in the same pass over its rows. Only the lower triangle is read.
//
// vⱼ has n − 1 − j numbers, for rows j + 1 … n − 1; they are packed one after the other.
#pragma once

#include "single.h"
#include "tridiagonal.h"

namespace pmaf {
namespace PMAF_ISA {

// Where one reflection starts, and how many numbers all of them take.
constexpr std::ptrdiff_t reflection_start(std::ptrdiff_t n, std::ptrdiff_t j) { return j * (n - 1) - j * (j - 1) / 2; }
constexpr std::ptrdiff_t reflections_size(std::ptrdiff_t n) { return n > 2 ? reflection_start(n, n - 2) : 0; }

// The sum over all lanes, in a fixed order.
template <class T, int W>
PMAF_INLINE T sum(Lanes<T, W> a) {
  if constexpr (W == 1) {
    return a.v[0];
  } else {
    Lanes<T, W / 2> low, high;
    __builtin_memcpy(&low, &a, sizeof(low));
    __builtin_memcpy(&high, reinterpret_cast<const char*>(&a) + sizeof(low), sizeof(high));
    return sum(low + high);
  }
}

// v and α from x₀ and the squared length of the rest.
template <class R>
PMAF_INLINE void reflection(R x0, R rest, R& alpha, R& first, R& scale) {
  const R zero(0), one(1);
  const R length = sqrt(fma(x0, x0, rest));
  const auto trivial = rest <= R(negligible<typename R::scalar>);
  alpha = select(trivial, x0, -copysign(length, x0));
  first = x0 - alpha;
  const R square = length * (length + abs(x0));
  scale = select(trivial, zero, one / sqrt(select(trivial, one, square)));
}

// One matrix, its rows in lanes: X has rows `stride` numbers apart; y is memory for 2n.
template <class C>
void tridiagonalise_rows(int n, C* X, std::ptrdiff_t stride, C* d, C* e, C* reflections, C* y) {
  constexpr int W = full_width<C>;
  using V = Lanes<C, W>;
  using One = Single<C>;
  C* w = y + n;
  const C* before = nullptr;
  for (int j = 0; j < n - 1; j++) {
    if (before) {
      const C vj = before[0], wj = w[j];
      for (int i = j; i < n; i++) {
        C* a = X + i * stride + j;
        *a = *a - before[i - j] * wj - w[i] * vj;
      }
    }
    d[j] = X[j * stride + j];
    const C x0 = X[(j + 1) * stride + j];
    if (j == n - 2) {
      e[j] = x0;
      d[n - 1] = X[(n - 1) * stride + n - 1];
      if (before) d[n - 1] -= 2 * before[1] * w[n - 1];
      return;
    }
    C* v = reflections + reflection_start(n, j) - (j + 1);
    C rest = 0;
    for (int i = j + 2; i < n; i++) v[i] = X[i * stride + j];
    {
      V total(C(0));
      int i = j + 2;
      for (; i + W <= n; i += W) total = fma(V::load(v + i), V::load(v + i), total);
      rest = sum(total);
      for (; i < n; i++) rest += v[i] * v[i];
    }
    One alpha, first, scale;
    reflection(One(x0), One(rest), alpha, first, scale);
    e[j] = alpha[0];
    v[j + 1] = first[0];
    for (int i = j + 1; i < n; i++) v[i] *= scale[0], y[i] = 0;
    for (int i = j + 1; i < n; i++) {
      C* row = X + i * stride;
      const C vi = v[i];
      const V vvi(vi);
      V total(C(0)), other(C(0));
      C tail = 0;
      int k = j + 1;
      if (before) {
        const C bi = before[i - j], wi = w[i];
        const V vbi(bi), vwi(wi);
        const C* b = before - j;
        for (; k + 2 * W <= i; k += 2 * W) {
          const V a = fnma(vbi, V::load(w + k), fnma(vwi, V::load(b + k), V::load(row + k)));
          const V c = fnma(vbi, V::load(w + k + W), fnma(vwi, V::load(b + k + W), V::load(row + k + W)));
          a.store(row + k);
          c.store(row + k + W);
          total = fma(a, V::load(v + k), total);
          other = fma(c, V::load(v + k + W), other);
          fma(a, vvi, V::load(y + k)).store(y + k);
          fma(c, vvi, V::load(y + k + W)).store(y + k + W);
        }
        for (; k + W <= i; k += W) {
          const V a = fnma(vbi, V::load(w + k), fnma(vwi, V::load(b + k), V::load(row + k)));
          a.store(row + k);
          total = fma(a, V::load(v + k), total);
          fma(a, vvi, V::load(y + k)).store(y + k);
        }
        for (; k < i; k++) {
          const C a = row[k] - wi * b[k] - bi * w[k];
          row[k] = a;
          tail += a * v[k];
          y[k] += a * vi;
        }
        row[i] -= 2 * bi * wi;
      } else {
        for (; k + W <= i; k += W) {
          const V a = V::load(row + k);
          total = fma(a, V::load(v + k), total);
          fma(a, vvi, V::load(y + k)).store(y + k);
        }
        for (; k < i; k++) {
          tail += row[k] * v[k];
          y[k] += row[k] * vi;
        }
      }
      y[i] += row[i] * vi + (sum(total + other) + tail);
    }
    C along = 0;
    {
      V total(C(0));
      int i = j + 1;
      for (; i + W <= n; i += W) total = fma(V::load(v + i), V::load(y + i), total);
      along = sum(total);
      for (; i < n; i++) along += v[i] * y[i];
    }
    along *= C(0.5);
    for (int i = j + 1; i < n; i++) w[i] = y[i] - along * v[i];
    before = v + (j + 1);
  }
  d[n - 1] = X[(n - 1) * stride + n - 1];
}

template <class C>
PMAF_INLINE void reflect_row(int count, const C* v, C* x) {
  constexpr int W = full_width<C>;
  using V = Lanes<C, W>;
  V total(C(0));
  int i = 0;
  for (; i + W <= count; i += W) total = fma(V::load(v + i), V::load(x + i), total);
  C a = sum(total);
  for (; i < count; i++) a += v[i] * x[i];
  const V va(a);
  for (i = 0; i + W <= count; i += W) fnma(V::load(v + i), va, V::load(x + i)).store(x + i);
  for (; i < count; i++) x[i] -= v[i] * a;
}

template <class C>
void apply_adjoint_rows(int n, const C* reflections, C* x) {
  for (int j = 0; j < n - 2; j++) reflect_row(n - 1 - j, reflections + reflection_start(n, j), x + j + 1);
}

template <class C>
void apply_rows(int n, const C* reflections, C* x) {
  for (int j = n - 3; j >= 0; j--) reflect_row(n - 1 - j, reflections + reflection_start(n, j), x + j + 1);
}

}  // namespace PMAF_ISA
}  // namespace pmaf
