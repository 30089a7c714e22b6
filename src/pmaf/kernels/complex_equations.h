// Q = AᴴA and g = Aᴴb of one complex item, and the measurements on its data, in real arithmetic.
//
// A vector z of n complex numbers is here one of 2n real numbers, (Re z, Im z); in memory that the caller sees, real and
// imaginary parts take turns. A Hermitian matrix is the left half of its real form, Re Q above Im Q, lower triangles.
//
// With the rows (Re a, Im a) of 2n numbers, K = Σ (Re a, Im a)ᵀ(Re a, Im a) holds all products there are:
//
//     Re Qᵢⱼ = Kᵢⱼ + Kₙ₊ᵢ,ₙ₊ⱼ,     Im Qᵢⱼ = Kₙ₊ⱼ,ᵢ − Kₙ₊ᵢ,ⱼ.
//
// Rows are read as they lie: for x let p = (Re x₀, −Im x₀, Re x₁, …) and q = (Im x₀, Re x₀, Im x₁, …). Then a·x = p·a + i q·a
// for a row a, and the row ρxᴴ is Re ρ p + Im ρ q.
#pragma once

#include "normal_equations.h"

namespace pmaf {
namespace PMAF_ISA {

// Up to this order complex problems are solved here.
constexpr int most_complex = 128;

template <class D>
struct ComplexLeastSquaresItem {
  std::ptrdiff_t m;
  int n;
  const D *A, *b, *weights;
};

template <class D>
struct ComplexQuadraticItem {
  int n;
  const D *H, *g;
};

// x in the two orders in which rows meet it.
struct Turned {
  double p[2 * most_complex], q[2 * most_complex];

  Turned() = default;
  Turned(int n, const double* x) {
    for (int i = 0; i < n; i++) {
      p[2 * i] = q[2 * i + 1] = x[i];
      q[2 * i] = x[n + i];
      p[2 * i + 1] = -x[n + i];
    }
  }
};

// a·x
template <class D>
PMAF_INLINE void product(int n, const D* row, const Turned& x, double& re, double& im) {
  constexpr int W = full_width<double>;
  using V = Lanes<double, W>;
  V first(0.0), second(0.0);
  double p = 0, q = 0;
  int j = 0;
  for (; j + W <= 2 * n; j += W) {
    const V a = load_as<double, W>(row + j);
    first = fma(a, V::load(x.p + j), first);
    second = fma(a, V::load(x.q + j), second);
  }
  for (; j < 2 * n; j++) p += double(row[j]) * x.p[j], q += double(row[j]) * x.q[j];
  re = sum(first) + p;
  im = sum(second) + q;
}

// to = (α + iβ)xᴴ + (γ + iδ)yᴴ
template <class D>
PMAF_INLINE void combine(int n, double alpha, double beta, const Turned& x, double gamma, double delta, const Turned& y,
                         D* to) {
  constexpr int W = full_width<double>;
  using V = Lanes<double, W>;
  const V a(alpha), b(beta), c(gamma), d(delta);
  int j = 0;
  for (; j + W <= 2 * n; j += W) {
    const V first = fma(a, V::load(x.p + j), b * V::load(x.q + j));
    store_as<D>(to + j, fma(c, V::load(y.p + j), fma(d, V::load(y.q + j), first)));
  }
  for (; j < 2 * n; j++) to[j] = D(alpha * x.p[j] + beta * x.q[j] + gamma * y.p[j] + delta * y.q[j]);
}

// s = Σ aᴴρ over rows a.
struct Gathered {
  double re[2 * most_complex], im[2 * most_complex];

  explicit Gathered(int n) {
    for (int j = 0; j < 2 * n; j++) re[j] = im[j] = 0;
  }
  template <class D>
  PMAF_INLINE void add(int n, const D* row, double rho, double iota) {
    constexpr int W = full_width<double>;
    using V = Lanes<double, W>;
    const V r(rho), i(iota);
    int j = 0;
    for (; j + W <= 2 * n; j += W) {
      const V a = load_as<double, W>(row + j);
      fma(a, r, V::load(re + j)).store(re + j);
      fma(a, i, V::load(im + j)).store(im + j);
    }
    for (; j < 2 * n; j++) re[j] += double(row[j]) * rho, im[j] += double(row[j]) * iota;
  }
  void add_to(int n, double* s) const {
    for (int i = 0; i < n; i++) {
      s[i] += re[2 * i] + im[2 * i + 1];
      s[n + i] += im[2 * i] - re[2 * i + 1];
    }
  }
};

template <class D>
void item_exponents(const ComplexLeastSquaresItem<D>& item, int& matrix, int& right, bool& fine) {
  if (!item.weights) {
    matrix = unit_exponent(largest(2 * item.m * item.n, item.A, fine));
    right = unit_exponent(largest(2 * item.m, item.b, fine));
    return;
  }
  double a = 0, b = 0;
  for (std::ptrdiff_t k = 0; k < item.m; k++) {
    const double weight = item.weights[k], root = std::sqrt(weight);
    fine = fine && weight >= 0 && weight <= std::numeric_limits<double>::max();
    const double row = root * largest(2 * item.n, item.A + 2 * k * item.n, fine);
    const double entry = root * largest(2, item.b + 2 * k, fine);
    a = row > a ? row : a;
    b = entry > b ? entry : b;
  }
  matrix = unit_exponent(a);
  right = unit_exponent(b);
}

// G (rows of `padded(2n)` numbers) and g (`padded(2n)`) in the item's units. Memory: (row_block + 2)(padded(2n) + 2) numbers.
template <class D, class C>
void normal_equations(const ComplexLeastSquaresItem<D>& item, double matrix_factor, double right_factor, C* G, C* g,
                      C* memory) {
  constexpr int W = full_width<C>;
  const int n = item.n;
  const std::ptrdiff_t stride = padded<C>(2 * n);
  C *P = memory, *from_re = P + row_block * stride, *from_im = from_re + stride, *y = from_im + stride;
  for (std::ptrdiff_t i = 0; i < stride * stride; i++) G[i] = 0;
  for (int j = 0; j < stride; j++) from_re[j] = from_im[j] = 0;
  for (std::ptrdiff_t k0 = 0; k0 < item.m; k0 += row_block) {
    const int count = static_cast<int>(item.m - k0 < row_block ? item.m - k0 : row_block);
    for (int k = 0; k < count; k++) {
      const D* row = item.A + 2 * (k0 + k) * n;
      const double root = item.weights ? std::sqrt(double(item.weights[k0 + k])) : 1;
      const C scale = C(root * matrix_factor);
      C* to = P + k * stride;
      for (int j = 0; j < n; j++) to[j] = C(row[2 * j]) * scale, to[n + j] = C(row[2 * j + 1]) * scale;
      for (int j = 2 * n; j < stride; j++) to[j] = 0;
      for (int part = 0; part < 2; part++)
        y[part * row_block + k] = C(double(item.b[2 * (k0 + k) + part]) * (root * right_factor));
    }
    for (int i = 0; i < 2 * n; i += 4)
      gram_strip<C, 4>(count, P + i, stride, P, stride, G + i * stride, stride, (i + 3) / W + 1);
    gram_strip<C, 1>(count, y, 1, P, stride, from_re, stride, static_cast<int>(stride / W));
    gram_strip<C, 1>(count, y + row_block, 1, P, stride, from_im, stride, static_cast<int>(stride / W));
  }
  for (int i = 0; i < n; i++) {
    for (int j = 0; j <= i; j++) {
      C *re = G + i * stride + j, *im = G + (n + i) * stride + j;
      *re += G[(n + i) * stride + n + j];
      *im = i == j ? 0 : G[(n + j) * stride + i] - *im;
    }
    g[i] = from_re[i] + from_im[n + i];
    g[n + i] = from_im[i] - from_re[n + i];
  }
}

// s = A'ᴴ(τb' − σA'u) − λu with A' = A·matrix and τb' = b·right, in double precision from the data.
template <class D>
Measured measure(const ComplexLeastSquaresItem<D>& item, double matrix, double right, double sigma, const double* u,
                 double lambda, double* s) {
  const int n = item.n;
  const Turned x(n, u);
  Gathered all(n);
  double rest = 0, whole = 0;
  for (std::ptrdiff_t k = 0; k < item.m; k++) {
    const D* row = item.A + 2 * k * n;
    const double root = item.weights ? std::sqrt(double(item.weights[k])) : 1, scale = root * matrix;
    double re, im;
    product(n, row, x, re, im);
    const double b_re = double(item.b[2 * k]) * (root * right), b_im = double(item.b[2 * k + 1]) * (root * right);
    re = b_re - re * scale * sigma, im = b_im - im * scale * sigma;
    rest += re * re + im * im;
    whole += b_re * b_re + b_im * b_im;
    all.add(n, row, re * scale, im * scale);
  }
  double total = 0;
  for (int j = 0; j < 2 * n; j++) s[j] = -lambda * u[j];
  all.add_to(n, s);
  for (int j = 0; j < 2 * n; j++) total += s[j] * s[j];
  return {std::sqrt(total), std::sqrt(rest), std::sqrt(whole)};
}

template <class D>
void item_exponents(const ComplexQuadraticItem<D>& item, int& matrix, int& right, bool& fine) {
  matrix = unit_exponent(largest(2 * std::ptrdiff_t(item.n) * item.n, item.H, fine));
  right = unit_exponent(largest(2 * item.n, item.g, fine));
}

// H is read as (H + Hᴴ)/2.
template <class D, class C>
void normal_equations(const ComplexQuadraticItem<D>& item, double matrix, double right, C* G, C* g, C*) {
  const int n = item.n;
  const std::ptrdiff_t stride = padded<C>(2 * n);
  const double half = matrix / 2;
  for (int i = 0; i < n; i++) {
    for (int j = 0; j <= i; j++) {
      const D *ij = item.H + 2 * (i * n + j), *ji = item.H + 2 * (j * n + i);
      G[i * stride + j] = C(double(ij[0]) * half + double(ji[0]) * half);
      G[(n + i) * stride + j] = C(double(ij[1]) * half - double(ji[1]) * half);
    }
    g[i] = C(double(item.g[2 * i]) * right);
    g[n + i] = C(double(item.g[2 * i + 1]) * right);
  }
}

// s = τg' − σH'u − λu.
template <class D>
Measured measure(const ComplexQuadraticItem<D>& item, double matrix, double right, double sigma, const double* u,
                 double lambda, double* s) {
  const int n = item.n;
  const double half = matrix * sigma / 2;
  const Turned x(n, u);
  Gathered all(n);
  for (int i = 0; i < n; i++) {
    const D* row = item.H + 2 * std::ptrdiff_t(i) * n;
    double re, im;
    product(n, row, x, re, im);
    s[i] = double(item.g[2 * i]) * right - lambda * u[i] - half * re;
    s[n + i] = double(item.g[2 * i + 1]) * right - lambda * u[n + i] - half * im;
    all.add(n, row, -half * u[i], -half * u[n + i]);
  }
  all.add_to(n, s);
  double total = 0;
  for (int j = 0; j < 2 * n; j++) total += s[j] * s[j];
  return {std::sqrt(total), 0, 0};
}

}  // namespace PMAF_ISA
}  // namespace pmaf
