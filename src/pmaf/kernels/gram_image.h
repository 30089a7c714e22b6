// The images F V of a few vectors, in double precision, rounded once: one pass over the rows of F, which costs no more than
// reading them.
//
// As many rows at a time as there are lanes, each against up to three vectors along its length; a transposition then brings
// the lanes of one row together. What belongs to a row does not depend on its neighbours.
#pragma once

#include "arena.h"
#include "gram_calls.h"
#include "lanes.h"

namespace pmaf {
namespace PMAF_ISA {

template <class D>
struct GramImage {
  static constexpr int W = full_width<double>;
  static constexpr std::int64_t piece = 4096;  // rows that a thread takes at a time
  static constexpr std::int64_t ahead = 2 * W;     // rows that are on their way from memory
  using R = Lanes<double, W>;
  const GramImageCall& call;

  std::int64_t pieces() const { return (call.m + piece - 1) / piece; }
  static std::size_t bytes(std::ptrdiff_t n, std::ptrdiff_t k) { return n * k * sizeof(double) + 2 * Arena::alignment; }

  // `lanes` rows against `columns` vectors, which lie one after the other.
  template <int columns>
  PMAF_INLINE void some_rows(const D* from, int lanes, const double* V, D* to) const {
    const int n = int(call.n);
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
    R total[columns];
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
    for (int c = 0; c < columns; c++) scatter(to + c, call.k, lanes, convert<D>(total[c]));
  }

  int operator()(std::int64_t block, int, Arena arena) const {
    const std::ptrdiff_t n = call.n, k = call.k, item = block / pieces(), first = block % pieces() * piece;
    const std::ptrdiff_t end = first + piece < call.m ? first + piece : call.m;
    double* V = arena.take<double>(n * k);
    for (std::ptrdiff_t i = 0; i < n; i++)
      for (std::ptrdiff_t c = 0; c < k; c++) V[c * n + i] = call.V[(item * n + i) * k + c];
    const D* F = static_cast<const D*>(call.F) + item * call.m * n;
    D* to = static_cast<D*>(call.image) + item * call.m * k;
    for (std::ptrdiff_t row = first; row < end; row += W) {
      const int lanes = int(end - row < W ? end - row : W);
      prefetch(F + (row + ahead) * n, W * n);
      std::ptrdiff_t c = 0;
      for (; c + 3 <= k; c += 3) some_rows<3>(F + row * n, lanes, V + c * n, to + row * k + c);
      if (k - c == 2) some_rows<2>(F + row * n, lanes, V + c * n, to + row * k + c);
      if (k - c == 1) some_rows<1>(F + row * n, lanes, V + c * n, to + row * k + c);
    }
    return 0;
  }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
