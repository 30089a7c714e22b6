// The two products with a factor that the eigenpairs of X = FᴴF need beside those of a matrix: X itself in double
// precision, which for single F loses nothing down to σ ≈ 1e-8‖F‖, and the gradient
//
//     F̄ = (FU)Wᴴ + (FW)Uᴴ.
//
// An entry of X is a sum over rows in their order, whether items lie in lanes or one is taken at a time, so that an item has
// the same bits alone and in a batch.
#pragma once

#include "arena.h"
#include "complex_equations.h"
#include "gram_calls.h"
#include "jacobi.h"
#include "normal_equations.h"

namespace pmaf {
namespace PMAF_ISA {

// In lanes: sums of products of columns i … i + rows − 1 with columns j … j + columns − 1 over `count` rows of `n` numbers.
template <int rows, int columns, class R>
PMAF_INLINE void product_tile(int n, int count, const R* x, const R* y, R* G) {
  R sums[rows][columns];
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) sums[i][j] = G[i * n + j];
  for (int r = 0; r < count; r++) {
    R right[columns];
    for (int j = 0; j < columns; j++) right[j] = y[r * n + j];
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < columns; j++) sums[i][j] = fma(x[r * n + i], right[j], sums[i][j]);
  }
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) G[i * n + j] = sums[i][j];
}

template <int rows, class R>
void product_strip(int n, int count, const R* data, int i, R* G) {
  int j = 0;
  for (; j + 4 <= i + rows; j += 4) product_tile<rows, 4>(n, count, data + i, data + j, G + i * n + j);
  switch (i + rows - j) {
    case 3: product_tile<rows, 3>(n, count, data + i, data + j, G + i * n + j); break;
    case 2: product_tile<rows, 2>(n, count, data + i, data + j, G + i * n + j); break;
    case 1: product_tile<rows, 1>(n, count, data + i, data + j, G + i * n + j); break;
    default: break;
  }
}

// A block of items of single precision in lanes.
template <int W>
struct ProductInLanes {
  using R = Lanes<double, W>;
  const GramProductCall& call;

  static std::size_t bytes(std::ptrdiff_t n) {
    return W * (n * n + rows_at_once(int(n)) * n) * sizeof(double) + 4 * Arena::alignment;
  }

  int operator()(std::int64_t first, int lanes, Arena arena) const {
    const int n = int(call.n), at_once = rows_at_once(n);
    const std::ptrdiff_t item = std::ptrdiff_t(call.m) * n;
    R* G = arena.take<R>(std::ptrdiff_t(n) * n);
    R* data = arena.take<R>(std::ptrdiff_t(at_once) * n);
    const float* F = static_cast<const float*>(call.F) + first * item;
    for (int i = 0; i < n * n; i++) G[i] = R(0);
    for (std::int64_t start = 0; start < call.m; start += at_once) {
      const int count = int(call.m - start < at_once ? call.m - start : at_once), numbers = count * n;
      const float* from = F + start * n;
      int q = 0;
      for (; q + W <= numbers; q += W) {
        R tile[W];
        for (int l = 0; l < W; l++) tile[l] = load_as<double, W>(from + (l < lanes ? l : 0) * item + q);
        transpose(tile);
        for (int l = 0; l < W; l++) data[q + l] = tile[l];
      }
      for (; q < numbers; q++) data[q] = convert<double>(gather<float, W>(from + q, item, lanes));
      int i = 0;
      for (; i + 2 <= n; i += 2) product_strip<2>(n, count, data, i, G);
      if (i < n) product_strip<1>(n, count, data, i, G);
    }
    for (int i = 0; i < n; i++)
      for (int j = i + 1; j < n; j++) G[i * n + j] = G[j * n + i];
    const std::ptrdiff_t square = std::ptrdiff_t(n) * n;
    store_items<double, W>(reinterpret_cast<const double*>(G), square, call.X + first * square, square, lanes);
    return 0;
  }
};

// One item at a time, for few or wide ones.
template <class D, bool is_complex>
struct ProductOfOne {
  static constexpr int parts = is_complex ? 2 : 1;
  const GramProductCall& call;

  static std::size_t bytes(std::ptrdiff_t n) {
    const std::ptrdiff_t stride = padded<double>(parts * n);
    return ((row_block + stride + 3) * stride + 2 * row_block) * sizeof(double) + 8 * Arena::alignment;
  }

  int operator()(std::int64_t at, int, Arena arena) const {
    const int n = int(call.n);
    const std::ptrdiff_t stride = padded<double>(parts * n);
    double* G = arena.take<double>(stride * stride);
    double* right = arena.take<double>(stride);
    double* memory = arena.take<double>((row_block + 2) * stride + 2 * row_block);
    const D* F = static_cast<const D*>(call.F) + at * call.m * n * parts;
    double* X = call.X + at * n * n * parts;
    if constexpr (is_complex) {
      normal_equations(ComplexLeastSquaresItem<D>{call.m, n, F, F, nullptr}, 1.0, 0.0, G, right, memory);
      for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
          double *ij = X + 2 * (i * n + j), *ji = X + 2 * (j * n + i);
          const double im = G[(n + i) * stride + j];
          ij[0] = ji[0] = G[i * stride + j];
          ji[1] = -im, ij[1] = im;
        }
    } else {
      normal_equations(LeastSquaresItem<D>{call.m, n, F, nullptr, nullptr}, 1.0, 0.0, G, right, memory);
      for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) X[i * n + j] = X[j * n + i] = G[i * stride + j];
    }
    return 0;
  }
};

// F̄ = diag(w)((FU)Wᵀ + (FW)Uᵀ) and w̄ = Σᵢ (FU)ᵢ(FW)ᵢ of one item of m rows, which go through the lanes; U and W lie column
// by column. No weights count as ones, and what has no place to go is not computed. Zero for an item that is not good.
template <class D>
void write_gradient(std::int64_t m, int n, int k, bool good, const D* F, const D* weights, const double* U, const double* W,
                    D* to, D* to_weights, double* memory) {
  constexpr int width = full_width<double>;
  using V = Lanes<double, width>;
  if (!good) {
    for (std::ptrdiff_t i = 0; to && i < m * n; i++) to[i] = D(0);
    for (std::ptrdiff_t i = 0; to_weights && i < m; i++) to_weights[i] = D(0);
    return;
  }
  V* x = reinterpret_cast<V*>(memory);
  V* total = x + n;
  for (std::int64_t start = 0; start < m; start += width) {
    const int lanes = int(m - start < width ? m - start : width);
    const D* from = F + start * n;
    const V weight = weights ? convert<double>(gather<D, width>(weights + start, 1, lanes)) : V(1.0);
    int i = 0;
    for (; i + width <= n; i += width) {
      V tile[width];
      for (int l = 0; l < width; l++) tile[l] = load_as<double, width>(from + (l < lanes ? l : 0) * n + i);
      transpose(tile);
      for (int l = 0; l < width; l++) x[i + l] = tile[l];
    }
    for (; i < n; i++) x[i] = convert<double>(gather<D, width>(from + i, n, lanes));
    V slope(0.0);
    for (int c = 0; c < k; c++) {
      const double *u = U + std::ptrdiff_t(c) * n, *w = W + std::ptrdiff_t(c) * n;
      V p(0.0), q(0.0);
      for (i = 0; i < n; i++) p = fma(x[i], V(u[i]), p), q = fma(x[i], V(w[i]), q);
      slope = fma(p, q, slope);
      p *= weight, q *= weight;
      for (i = 0; i < n; i++) total[i] = fma(p, V(w[i]), c == 0 ? q * V(u[i]) : fma(q, V(u[i]), total[i]));
    }
    if (to_weights) scatter(to_weights + start, 1, lanes, convert<D>(slope));
    if (!to) continue;
    D* target = to + start * n;
    for (i = 0; i + width <= n; i += width) {
      V tile[width];
      for (int l = 0; l < width; l++) tile[l] = total[i + l];
      transpose(tile);
      for (int l = 0; l < lanes; l++) store_as<D>(target + l * n + i, tile[l]);
    }
    for (; i < n; i++) scatter(target + i, n, lanes, convert<D>(total[i]));
  }
}

// Room for write_gradient, in numbers.
constexpr std::ptrdiff_t gradient_room(std::ptrdiff_t n) { return 2 * n * full_width<double>; }

template <class D>
struct GramOuter {
  const GramOuterCall& call;

  static std::size_t bytes(std::ptrdiff_t n, std::ptrdiff_t k) {
    return (2 * n * k + gradient_room(n)) * sizeof(double) + 8 * Arena::alignment;
  }

  int operator()(std::int64_t at, int, Arena arena) const {
    const int n = int(call.n), k = int(call.k);
    double* U = arena.take<double>(std::ptrdiff_t(n) * k);
    double* W = arena.take<double>(std::ptrdiff_t(n) * k);
    double* room = arena.take<double>(gradient_room(n));
    for (int i = 0; i < n; i++)
      for (int c = 0; c < k; c++) {
        U[c * n + i] = call.U[(at * n + i) * k + c];
        W[c * n + i] = call.W[(at * n + i) * k + c];
      }
    const D *F = static_cast<const D*>(call.F) + at * call.m * n, *none = nullptr;
    D* to = static_cast<D*>(call.F_gradient) + at * call.m * n;
    write_gradient(call.m, n, k, call.code[at] == 0, F, none, U, W, to, static_cast<D*>(nullptr), room);
    return 0;
  }
};

template <class D>
struct ComplexGramOuter {
  const GramOuterCall& call;

  static std::size_t bytes(std::ptrdiff_t, std::ptrdiff_t k) { return 2 * k * sizeof(Turned) + 8 * Arena::alignment; }

  int operator()(std::int64_t at, int, Arena arena) const {
    const int n = int(call.n), k = int(call.k);
    const D* F = static_cast<const D*>(call.F) + 2 * at * call.m * n;
    D* to = static_cast<D*>(call.F_gradient) + 2 * at * call.m * n;
    if (call.code[at] != 0) {
      for (std::ptrdiff_t i = 0; i < 2 * call.m * n; i++) to[i] = D(0);
      return 0;
    }
    Turned *U = arena.take<Turned>(k), *W = arena.take<Turned>(k);
    double parts[2 * most_complex], term[2 * most_complex];
    const auto take = [&](const double* from, int c) {
      for (int i = 0; i < n; i++) {
        const double* z = from + 2 * ((at * n + i) * k + c);
        parts[i] = z[0], parts[n + i] = z[1];
      }
      return Turned(n, parts);
    };
    for (int c = 0; c < k; c++) U[c] = take(call.U, c), W[c] = take(call.W, c);
    for (std::ptrdiff_t row = 0; row < call.m; row++, F += 2 * n, to += 2 * n) {
      for (int c = 0; c < k; c++) {
        double p_re, p_im, q_re, q_im;
        product(n, F, U[c], p_re, p_im);
        product(n, F, W[c], q_re, q_im);
        combine(n, p_re, p_im, W[c], q_re, q_im, U[c], term);
        for (int j = 0; j < 2 * n; j++) parts[j] = c == 0 ? term[j] : parts[j] + term[j];
      }
      for (int j = 0; j < 2 * n; j++) to[j] = D(parts[j]);
    }
    return 0;
  }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
