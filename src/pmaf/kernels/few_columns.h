// What takes one pass over the rows of a long real F, in double precision, rounded once: the images F V of a few vectors,
// and the gradient of singular triplets,
//
//     F̄ = U Pᵀ + (H + F w) Qᵀ.
//
// As many rows at a time as there are lanes, each against up to three vectors along its length; a transposition then brings
// the lanes of one row together. What belongs to a row does not depend on its neighbours.
#pragma once

#include "arena.h"
#include "gram_calls.h"
#include "lanes.h"

namespace pmaf {
namespace PMAF_ISA {

constexpr std::int64_t rows_of_a_thread = 4096;  // at a time

// A few rows of F (m, n), which is `n` numbers apart.
template <class D>
struct SomeRows {
  static constexpr int W = full_width<double>;
  static constexpr int ahead = 2 * W;  // rows that are on their way from memory
  using R = Lanes<double, W>;
  int n, lanes;
  const D* from;

  SomeRows(const D* F, std::ptrdiff_t columns, std::ptrdiff_t row, std::ptrdiff_t end)
      : n(int(columns)), lanes(int(end - row < W ? end - row : W)), from(F + row * columns) {
    prefetch(from + ahead * columns, W * columns);
  }

  // Against `columns` vectors, which lie one after the other; row l's in lane l.
  template <int columns>
  PMAF_INLINE void against(const double* V, R* total) const {
    R sums[columns][W];
    for (int c = 0; c < columns; c++)
      for (int l = 0; l < W; l++) sums[c][l] = R(0.0);
    int i = 0;
    for (; i + W <= n; i += W)
#pragma GCC unroll 8
      for (int l = 0; l < W; l++) {
        const R x = load_as<double, W>(from + std::ptrdiff_t(l < lanes ? l : 0) * n + i);
#pragma GCC unroll 3
        for (int c = 0; c < columns; c++) sums[c][l] = fma(x, R::load(V + std::ptrdiff_t(c) * n + i), sums[c][l]);
      }
    for (int c = 0; c < columns; c++) {
      transpose(sums[c]);
      for (int width = W / 2; width > 0; width /= 2)
        for (int l = 0; l < width; l++) sums[c][l] += sums[c][l + width];
      total[c] = sums[c][0];
    }
    for (; i < n; i++) {
      const R x = convert<double>(gather<D, W>(from + i, n, lanes));
      for (int c = 0; c < columns; c++) total[c] = fma(x, R(V[std::ptrdiff_t(c) * n + i]), total[c]);
    }
  }

  void against(int k, const double* V, R* total) const {
    int c = 0;
    for (; c + 3 <= k; c += 3) against<3>(V + std::ptrdiff_t(c) * n, total + c);
    if (k - c == 2) against<2>(V + std::ptrdiff_t(c) * n, total + c);
    if (k - c == 1) against<1>(V + std::ptrdiff_t(c) * n, total + c);
  }
};

// (n, k) into k vectors `pitch` apart.
inline void one_after_the_other(std::ptrdiff_t n, std::ptrdiff_t k, const double* from, std::ptrdiff_t pitch, double* to) {
  for (std::ptrdiff_t i = 0; i < n; i++)
    for (std::ptrdiff_t c = 0; c < k; c++) to[c * pitch + i] = from[i * k + c];
}

// Calls do(item, first, end) for a thread's share of rows.
template <class Call, class Do>
int over_rows(const Call& call, std::int64_t block, const Do& run) {
  const std::int64_t shares = (call.m + rows_of_a_thread - 1) / rows_of_a_thread;
  const std::int64_t first = block % shares * rows_of_a_thread, left = call.m - first;
  run(block / shares, first, first + (left < rows_of_a_thread ? left : rows_of_a_thread));
  return 0;
}

template <class D>
struct GramImage {
  static constexpr int W = full_width<double>;
  using R = Lanes<double, W>;
  const GramImageCall& call;

  static std::size_t bytes(std::ptrdiff_t n, std::ptrdiff_t k) { return (n + W) * k * sizeof(double) + 4 * Arena::alignment; }

  int operator()(std::int64_t block, int, Arena arena) const {
    const std::ptrdiff_t n = call.n, k = call.k;
    double* V = arena.take<double>(n * k);
    R* total = arena.take<R>(k);
    return over_rows(call, block, [&](std::ptrdiff_t item, std::ptrdiff_t first, std::ptrdiff_t end) {
      one_after_the_other(n, k, call.V + item * n * k, n, V);
      const D* F = static_cast<const D*>(call.F) + item * call.m * n;
      D* to = static_cast<D*>(call.image) + item * call.m * k;
      for (std::ptrdiff_t row = first; row < end; row += W) {
        const SomeRows<D> rows(F, n, row, end);
        rows.against(int(k), V, total);
        for (int c = 0; c < k; c++) scatter(to + row * k + c, k, rows.lanes, convert<D>(total[c]));
      }
    });
  }
};

template <class D>
struct TripletGradient {
  static constexpr int W = full_width<double>;
  using R = Lanes<double, W>;
  const TripletGradientCall& call;

  static std::ptrdiff_t pitch(std::ptrdiff_t n) { return (n + W - 1) / W * W; }
  static std::size_t bytes(std::ptrdiff_t n, std::ptrdiff_t k) {
    return (n * k + 2 * k * pitch(n) + 2 * k * W) * sizeof(double) + 8 * Arena::alignment;
  }

  // Σ left[c]·right[c], row by row, to where the rows of the gradient lie.
  PMAF_INLINE void combine(int terms, int lanes, const R* left, const double* right, D* to) const {
    const int n = int(call.n);
    const double* factors = reinterpret_cast<const double*>(left);
    for (int i = 0; i < n; i += W) {
      R sums[W];
      for (int l = 0; l < W; l++) sums[l] = R(0.0);
      for (int c = 0; c < terms; c++) {
        const R along = R::load(right + c * pitch(n) + i);
#pragma GCC unroll 8
        for (int l = 0; l < W; l++) sums[l] = fma(R(factors[c * W + l]), along, sums[l]);
      }
      if (i + W <= n) {
        for (int l = 0; l < lanes; l++) store_as<D>(to + std::ptrdiff_t(l) * n + i, sums[l]);
      } else {
        for (int l = 0; l < lanes; l++)
          for (int j = i; j < n; j++) to[std::ptrdiff_t(l) * n + j] = D(sums[l][j - i]);
      }
    }
  }

  int operator()(std::int64_t block, int, Arena arena) const {
    const std::ptrdiff_t n = call.n, k = call.k, p = pitch(n);
    double* w = arena.take<double>(n * k);
    double* right = arena.take<double>(2 * k * p);
    R* left = arena.take<R>(2 * k);
    return over_rows(call, block, [&](std::ptrdiff_t item, std::ptrdiff_t first, std::ptrdiff_t end) {
      for (std::ptrdiff_t i = 0; i < 2 * k * p; i++) right[i] = 0;
      one_after_the_other(n, k, call.w + item * n * k, n, w);
      one_after_the_other(n, k, call.P + item * n * k, p, right);
      one_after_the_other(n, k, call.Q + item * n * k, p, right + k * p);
      const D *F = static_cast<const D*>(call.F) + item * call.m * n, *U = static_cast<const D*>(call.U) + item * call.m * k;
      const D* H = call.H ? static_cast<const D*>(call.H) + item * call.m * k : nullptr;
      D* to = static_cast<D*>(call.F_gradient) + item * call.m * n;
      for (std::ptrdiff_t row = first; row < end; row += W) {
        const SomeRows<D> rows(F, n, row, end);
        rows.against(int(k), w, left + k);
        for (int c = 0; c < k; c++) {
          left[c] = convert<double>(gather<D, W>(U + row * k + c, k, rows.lanes));
          if (H) left[k + c] += convert<double>(gather<D, W>(H + row * k + c, k, rows.lanes));
        }
        combine(int(2 * k), rows.lanes, left, right, to + row * n);
      }
    });
  }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
