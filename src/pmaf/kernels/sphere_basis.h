// Q = Q̃ T Q̃ᵀ for a block of items: small matrices side by side in lanes, large ones one at a time.
//
// Complex problems. z ∈ ℂⁿ is (Re z, Im z) ∈ ℝ²ⁿ. Q = Q̃ T Q̃ᴴ with the same real T for both parts: in the basis Q̃ the real
// problem of order 2n has the tridiagonal matrix [T 0; 0 T], and all that follows is as for real ones.
//
// A basis is loaded with the lower triangle of Q, factorised, applied to vectors in lanes, and put away in an item's
// factor and taken out again. A factor holds, for each item, the reflections (`size` numbers, with T), then u in the basis
// (n numbers) and `extras` numbers more.
#pragma once

#include "tridiagonal.h"
#include "tridiagonal_rows.h"

namespace pmaf {
namespace PMAF_ISA {

// λ'', α, max(k, 0), whether the constraint is inactive (see sphere.h).
constexpr int extras = 4;

// Up to this order matrices lie side by side in lanes; up to the next, float data are computed in double precision.
constexpr std::int64_t most_in_lanes = 40, most_widened = 96;

constexpr std::ptrdiff_t basis_size(std::ptrdiff_t n) { return triangle(n) + n; }

// How many numbers the factor of an item takes.
constexpr std::ptrdiff_t factor_size(std::ptrdiff_t n) { return basis_size(n) + n + extras; }

// The same in a basis, of order n as a real problem.
template <class Basis>
constexpr std::ptrdiff_t factor_size(std::ptrdiff_t n) {
  return Basis::size(n) + n + extras;
}

// Matrices side by side.
template <class C, int W>
struct LaneBasis {
  using R = Lanes<C, W>;
  static constexpr int width = W;
  static constexpr bool is_complex = false;
  int n;
  R *A, *tau, *d, *e, *work;

  static constexpr std::ptrdiff_t size(std::ptrdiff_t n) { return basis_size(n); }
  static std::ptrdiff_t memory(std::ptrdiff_t n) { return W * (triangle(n) + 5 * n); }  // in numbers

  LaneBasis(int order, C* place) : n(order) {
    A = reinterpret_cast<R*>(place);
    tau = A + triangle(n);
    d = tau + n;
    e = d + n;
    work = e + n;
  }
  // The lower triangles of W matrices, one after the other, rows `stride` numbers apart.
  void load(const C* G, std::ptrdiff_t stride) {
    for (int i = 0; i < n; i++)
      for (int j = 0; j <= i; j += W) {
        R tile[W];
        for (int l = 0; l < W; l++) tile[l] = R::load(G + l * stride * stride + i * stride + j);
        transpose(tile);
        for (int k = 0; k < W && j + k <= i; k++) A[column(n, j + k) + i] = tile[k];
      }
  }
  void factorise() {
    tau[n - 1] = R(C(0));
    tridiagonalise(n, A, A, d, e, tau, work);
  }
  void apply(R* x) const { apply_q(n, A, tau, x); }
  void apply_adjoint(R* x) const { apply_q_adjoint(n, A, tau, x); }
  void put(int lanes, C* factor, std::ptrdiff_t stride) {
    for (int i = 0; i < n; i++) {
      A[column(n, i) + i] = d[i];
      if (i > 0) A[column(n, i - 1) + i] = e[i - 1];
    }
    store_items<C, W>(reinterpret_cast<const C*>(A), triangle(n), factor, stride, lanes);
    store_items<C, W>(reinterpret_cast<const C*>(tau), n, factor + triangle(n), stride, lanes);
  }
  void take(int lanes, const C* factor, std::ptrdiff_t stride) {
    load_items<C, W>(factor, stride, lanes, triangle(n), reinterpret_cast<C*>(A));
    load_items<C, W>(factor + triangle(n), stride, lanes, n, reinterpret_cast<C*>(tau));
    for (int i = 0; i < n; i++) {
      d[i] = A[column(n, i) + i];
      if (i > 0) e[i - 1] = A[column(n, i - 1) + i];
    }
  }
};

// Hermitian matrices of order n/2 side by side, as real ones of order n.
template <class C, int W>
struct ComplexLaneBasis {
  using R = Lanes<C, W>;
  using S = Complex<R>;
  static constexpr int width = W;
  static constexpr bool is_complex = true;
  int n, order;
  S *A, *tau, *work;
  R *d, *e;

  static constexpr std::ptrdiff_t size(std::ptrdiff_t n) { return 2 * basis_size(n / 2); }
  static std::ptrdiff_t memory(std::ptrdiff_t n) { return W * (2 * triangle(n / 2) + 5 * n); }

  ComplexLaneBasis(int twice, C* place) : n(twice), order(twice / 2) {
    A = reinterpret_cast<S*>(place);
    tau = A + triangle(order);
    work = tau + order;
    d = reinterpret_cast<R*>(work + 2 * order);
    e = d + n;
  }
  // Re Q above Im Q, lower triangles.
  void load(const C* G, std::ptrdiff_t stride) {
    for (int i = 0; i < order; i++)
      for (int j = 0; j <= i; j += W) {
        R re[W], im[W];
        for (int l = 0; l < W; l++) {
          const C* own = G + l * stride * stride + j;
          re[l] = R::load(own + i * stride);
          im[l] = R::load(own + (order + i) * stride);
        }
        transpose(re);
        transpose(im);
        for (int k = 0; k < W && j + k <= i; k++) A[column(order, j + k) + i] = S(re[k], im[k]);
      }
  }
  void factorise() {
    tau[order - 1] = S(C(0));
    tridiagonalise(order, A, A, d, e, tau, work);
    repeat();
  }
  // The second block of the tridiagonal matrix.
  void repeat() {
    for (int i = 0; i < order; i++) d[order + i] = d[i];
    for (int i = 0; i < order - 1; i++) e[order + i] = e[i];
    e[order - 1] = R(C(0));
  }
  void apply(R* x) const {
    for (int i = 0; i < order; i++) work[i] = S(x[i], x[order + i]);
    apply_q(order, A, tau, work);
    for (int i = 0; i < order; i++) x[i] = work[i].re, x[order + i] = work[i].im;
  }
  void apply_adjoint(R* x) const {
    for (int i = 0; i < order; i++) work[i] = S(x[i], x[order + i]);
    apply_q_adjoint(order, A, tau, work);
    for (int i = 0; i < order; i++) x[i] = work[i].re, x[order + i] = work[i].im;
  }
  void put(int lanes, C* factor, std::ptrdiff_t stride) {
    for (int i = 0; i < order; i++) {
      A[column(order, i) + i] = S(d[i]);
      if (i > 0) A[column(order, i - 1) + i] = S(e[i - 1]);
    }
    store_items<C, W>(reinterpret_cast<const C*>(A), 2 * triangle(order), factor, stride, lanes);
    store_items<C, W>(reinterpret_cast<const C*>(tau), n, factor + 2 * triangle(order), stride, lanes);
  }
  void take(int lanes, const C* factor, std::ptrdiff_t stride) {
    load_items<C, W>(factor, stride, lanes, 2 * triangle(order), reinterpret_cast<C*>(A));
    load_items<C, W>(factor + 2 * triangle(order), stride, lanes, n, reinterpret_cast<C*>(tau));
    for (int i = 0; i < order; i++) {
      d[i] = A[column(order, i) + i].re;
      if (i > 0) e[i - 1] = A[column(order, i - 1) + i].re;
    }
    repeat();
  }
};

// One matrix.
template <class C>
struct RowBasis {
  using R = Single<C>;
  static constexpr int width = 1;
  static constexpr bool is_complex = false;
  int n;
  std::ptrdiff_t stride;
  C *X, *reflections, *work;
  R *d, *e;

  static constexpr std::ptrdiff_t size(std::ptrdiff_t n) { return basis_size(n); }
  static std::ptrdiff_t memory(std::ptrdiff_t n) { return reflections_size(n) + 4 * n; }

  RowBasis(int order, C* place) : n(order) {
    reflections = place;
    C* after = place + reflections_size(n);
    d = reinterpret_cast<R*>(after);
    e = d + n;
    work = after + 2 * n;
  }
  void load(C* G, std::ptrdiff_t between) { X = G, stride = between; }
  void factorise() {
    tridiagonalise_rows(n, X, stride, reinterpret_cast<C*>(d), reinterpret_cast<C*>(e), reflections, work);
  }
  void apply(R* x) const { apply_rows(n, reflections, reinterpret_cast<C*>(x)); }
  void apply_adjoint(R* x) const { apply_adjoint_rows(n, reflections, reinterpret_cast<C*>(x)); }
  void put(int, C* factor, std::ptrdiff_t) {
    const std::ptrdiff_t size = reflections_size(n);
    __builtin_memcpy(factor, reflections, size * sizeof(C));
    __builtin_memcpy(factor + size, d, n * sizeof(C));
    __builtin_memcpy(factor + size + n, e, (n - 1) * sizeof(C));
    for (std::ptrdiff_t i = size + 2 * n - 1; i < basis_size(n); i++) factor[i] = 0;
  }
  void take(int, const C* factor, std::ptrdiff_t) {
    const std::ptrdiff_t size = reflections_size(n);
    __builtin_memcpy(reflections, factor, size * sizeof(C));
    __builtin_memcpy(d, factor + size, n * sizeof(C));
    __builtin_memcpy(e, factor + size + n, (n - 1) * sizeof(C));
  }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
