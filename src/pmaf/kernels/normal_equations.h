// Q = AᵀA and g = Aᵀb of one item in its own units, rows scaled by powers of two and by the roots of weights.
//
// Rows are copied in blocks, scaled, converted and padded to whole vectors; a tile of four rows of Q by up to four vectors
// stays in registers while a block of rows of A goes by.
#pragma once

#include <cmath>

#include "tridiagonal.h"
#include "tridiagonal_rows.h"

namespace pmaf {
namespace PMAF_ISA {

constexpr int row_block = 64;

// Vectors in a tile of four rows: as many as leave registers for its factors, of 32 or of 16.
constexpr int widest_tile = register_bytes == 64 ? 4 : 3;

template <class C>
constexpr std::ptrdiff_t padded(std::ptrdiff_t n) {
  constexpr std::ptrdiff_t W = full_width<C> > 4 ? full_width<C> : 4;
  return (n + W - 1) / W * W;
}

// G[i, j] += Σ_k left[k, i]·P[k, j] for `rows` rows i and `vectors` vectors of columns j.
template <class C, int rows, int vectors>
PMAF_INLINE void gram_tile(int count, const C* left, std::ptrdiff_t left_stride, const C* P, std::ptrdiff_t stride, C* G,
                           std::ptrdiff_t G_stride) {
  constexpr int W = full_width<C>;
  using V = Lanes<C, W>;
  V sums[rows][vectors];
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < vectors; j++) sums[i][j] = V::load(G + i * G_stride + j * W);
  for (int k = 0; k < count; k++) {
    V right[vectors];
    for (int j = 0; j < vectors; j++) right[j] = V::load(P + k * stride + j * W);
    for (int i = 0; i < rows; i++) {
      const V factor(left[k * left_stride + i]);
      for (int j = 0; j < vectors; j++) sums[i][j] = fma(factor, right[j], sums[i][j]);
    }
  }
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < vectors; j++) sums[i][j].store(G + i * G_stride + j * W);
}

template <class C, int rows>
void gram_strip(int count, const C* left, std::ptrdiff_t left_stride, const C* P, std::ptrdiff_t stride, C* G,
                std::ptrdiff_t G_stride, int vectors) {
  constexpr int W = full_width<C>;
  int j = 0;
  for (; j + widest_tile <= vectors; j += widest_tile)
    gram_tile<C, rows, widest_tile>(count, left, left_stride, P + j * W, stride, G + j * W, G_stride);
  switch (vectors - j) {
    case 3: gram_tile<C, rows, 3>(count, left, left_stride, P + j * W, stride, G + j * W, G_stride); break;
    case 2: gram_tile<C, rows, 2>(count, left, left_stride, P + j * W, stride, G + j * W, G_stride); break;
    case 1: gram_tile<C, rows, 1>(count, left, left_stride, P + j * W, stride, G + j * W, G_stride); break;
    default: break;
  }
}

// One least-squares item: A is (m, n); b, without which g is zero, and weights may be null.
template <class D>
struct LeastSquaresItem {
  std::ptrdiff_t m;
  int n;
  const D *A, *b, *weights;
};

// The largest |x|; `fine` is cleared by NaN and infinities, whose bits, read as integers, exceed those of all numbers.
template <class D>
PMAF_INLINE double largest(std::ptrdiff_t count, const D* x, bool& fine) {
  constexpr int W = full_width<D>;
  using I = typename Bits<D>::type;
  using V = typename Mask<D, W>::V;
  const V magnitude = V{} + static_cast<I>(~sign_bit<I>);
  V most{}, other{};
  std::ptrdiff_t i = 0;
  for (; i + 2 * W <= count; i += 2 * W) {
    const V a = (V)Lanes<D, W>::load(x + i).v & magnitude, b = (V)Lanes<D, W>::load(x + i + W).v & magnitude;
    most = a > most ? a : most;
    other = b > other ? b : other;
  }
  most = other > most ? other : most;
  I bits = 0;
  for (int l = 0; l < W; l++) bits = most[l] > bits ? most[l] : bits;
  for (; i < count; i++) {
    I own;
    __builtin_memcpy(&own, x + i, sizeof(D));
    own = static_cast<I>(own & ~sign_bit<I>);
    bits = own > bits ? own : bits;
  }
  D result;
  __builtin_memcpy(&result, &bits, sizeof(D));
  fine = fine && result <= std::numeric_limits<D>::max();
  return double(result);
}

// The exponent e of 2^e ≤ x < 2^(e+1); 0 for zero.
inline int unit_exponent(double x) {
  std::int64_t bits;
  __builtin_memcpy(&bits, &x, sizeof(x));
  const int e = static_cast<int>(bits >> 52);
  return e > 0 ? e - 1023 : x > 0 ? std::ilogb(x) : 0;
}

// x·2^e
inline double times_power(double x, int e) {
  if (e < -1022 || e > 1023) return std::ldexp(x, e);
  const std::int64_t bits = std::int64_t(e + 1023) << 52;
  double power;
  __builtin_memcpy(&power, &bits, sizeof(power));
  return x * power;
}

template <class D>
void item_exponents(const LeastSquaresItem<D>& item, int& matrix, int& right, bool& fine) {
  if (!item.weights) {
    matrix = unit_exponent(largest(item.m * item.n, item.A, fine));
    right = unit_exponent(largest(item.m, item.b, fine));
    return;
  }
  double a = 0, b = 0;
  for (std::ptrdiff_t k = 0; k < item.m; k++) {
    const double weight = item.weights[k], root = std::sqrt(weight);
    fine = fine && weight >= 0 && weight <= std::numeric_limits<double>::max();
    const double row = root * largest(item.n, item.A + k * item.n, fine);
    const double entry = root * largest(1, item.b + k, fine);
    a = row > a ? row : a;
    b = entry > b ? entry : b;
  }
  matrix = unit_exponent(a);
  right = unit_exponent(b);
}

// G (n rows of `padded` numbers, lower triangle and more) and g (`padded`) in the item's units.
// Memory: (row_block)·padded + row_block numbers.
template <class D, class C>
void normal_equations(const LeastSquaresItem<D>& item, double matrix_factor, double right_factor, C* G, C* g, C* memory) {
  constexpr int W = full_width<C>;
  const int n = item.n;
  const std::ptrdiff_t stride = padded<C>(n);
  C* P = memory;
  C* y = memory + row_block * stride;
  for (std::ptrdiff_t i = 0; i < stride * padded<C>(n); i++) G[i] = 0;
  for (int j = 0; j < stride; j++) g[j] = 0;
  for (std::ptrdiff_t k0 = 0; k0 < item.m; k0 += row_block) {
    const int count = static_cast<int>(item.m - k0 < row_block ? item.m - k0 : row_block);
    for (int k = 0; k < count; k++) {
      const D* row = item.A + (k0 + k) * n;
      const double root = item.weights ? std::sqrt(double(item.weights[k0 + k])) : 1;
      const C scale = C(root * matrix_factor);
      C* to = P + k * stride;
      int j = 0;
      for (; j + W <= n; j += W) (load_as<C, W>(row + j) * Lanes<C, W>(scale)).store(to + j);
      for (; j < n; j++) to[j] = C(row[j]) * scale;
      for (; j < stride; j++) to[j] = 0;
      if (item.b) y[k] = C(double(item.b[k0 + k]) * (root * right_factor));
    }
    const D* following = item.A + (k0 + row_block) * n;
    for (int i = 0; i < n; i += 4) {
      prefetch(following + std::ptrdiff_t(i) * row_block, 4 * row_block);  // a share of the next block for every strip
      gram_strip<C, 4>(count, P + i, stride, P, stride, G + i * stride, stride, (i + 3) / W + 1);
    }
    if (item.b) gram_strip<C, 1>(count, y, 1, P, stride, g, stride, static_cast<int>(stride / W));
  }
}

// What a measurement on the data tells, in the item's units.
struct Measured {
  double residual;  // ‖s‖
  double misfit;    // ‖τb' − σA'u‖
  double right;     // ‖τb'‖
};

// s = A'ᵀ(τb' − σA'u) − λu with A' = A·matrix and τb' = b·right, in double precision from the data.
template <class D>
Measured measure(const LeastSquaresItem<D>& item, double matrix, double right, double sigma, const double* u, double lambda,
                 double* s) {
  constexpr int W = full_width<double>;
  using V = Lanes<double, W>;
  const int n = item.n;
  double rest = 0, whole = 0;
  for (int j = 0; j < n; j++) s[j] = -lambda * u[j];
  for (std::ptrdiff_t k = 0; k < item.m; k++) {
    const D* row = item.A + k * n;
    V total(0.0);
    double tail = 0;
    int j = 0;
    for (; j + W <= n; j += W) total = fma(load_as<double, W>(row + j), V::load(u + j), total);
    for (; j < n; j++) tail += double(row[j]) * u[j];
    const double root = item.weights ? std::sqrt(double(item.weights[k])) : 1;
    const double b = double(item.b[k]) * (root * right), scale = root * matrix;
    const double r = b - (sum(total) + tail) * scale * sigma, along = r * scale;
    rest += r * r;
    whole += b * b;
    const V factor(along);
    for (j = 0; j + W <= n; j += W) fma(load_as<double, W>(row + j), factor, V::load(s + j)).store(s + j);
    for (; j < n; j++) s[j] += double(row[j]) * along;
  }
  double total = 0;
  for (int j = 0; j < n; j++) total += s[j] * s[j];
  return {std::sqrt(total), std::sqrt(rest), std::sqrt(whole)};
}

// The quadratic ½uᵀHu − gᵀu: H is (n, n) and read as (H + Hᵀ)/2.
template <class D>
struct QuadraticItem {
  int n;
  const D *H, *g;
};

template <class D>
void item_exponents(const QuadraticItem<D>& item, int& matrix, int& right, bool& fine) {
  matrix = unit_exponent(largest(std::ptrdiff_t(item.n) * item.n, item.H, fine));
  right = unit_exponent(largest(item.n, item.g, fine));
}

template <class D, class C>
void normal_equations(const QuadraticItem<D>& item, double matrix, double right, C* G, C* g, C*) {
  const int n = item.n;
  const std::ptrdiff_t stride = padded<C>(n);
  const double half = matrix / 2;
  for (int i = 0; i < n; i++)
    for (int j = 0; j <= i; j++) {
      const std::ptrdiff_t ij = std::ptrdiff_t(i) * n + j, ji = std::ptrdiff_t(j) * n + i;
      G[i * stride + j] = C(double(item.H[ij]) * half + double(item.H[ji]) * half);
    }
  for (int j = 0; j < n; j++) g[j] = C(double(item.g[j]) * right);
}

// s = τg' − σH'u − λu.
template <class D>
Measured measure(const QuadraticItem<D>& item, double matrix, double right, double sigma, const double* u, double lambda,
                 double* s) {
  const int n = item.n;
  const double half = matrix * sigma / 2;
  for (int j = 0; j < n; j++) s[j] = double(item.g[j]) * right - lambda * u[j];
  for (int i = 0; i < n; i++) {
    const D* row = item.H + std::ptrdiff_t(i) * n;
    const double along = u[i] * half;
    double total = 0;
    for (int j = 0; j < n; j++) {
      total += double(row[j]) * u[j];
      s[j] -= double(row[j]) * along;
    }
    s[i] -= total * half;
  }
  double total = 0;
  for (int j = 0; j < n; j++) total += s[j] * s[j];
  return {std::sqrt(total), 0, 0};
}

}  // namespace PMAF_ISA
}  // namespace pmaf
