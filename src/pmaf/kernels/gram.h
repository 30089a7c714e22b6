// Right singular vectors of a factor, that is, eigenvectors of X = FᵀF, without forming X: what is small beside ‖F‖ keeps
// the digits that squaring would lose.
//
// F, rows scaled by the roots of weights and a power of two, goes through reflections and Jacobi rotations (jacobi.h).
//
// With the whole of V the backward pass is wᵢ = Σⱼ vⱼ vⱼᵀhᵢ/((σᵢ − σⱼ)(σᵢ + σⱼ)) over separated j, wᵢ += λ̄ᵢuᵢ, and
//
//     F̄ = W((FU)Wᵀ + (FW)Uᵀ),   w̄ = Σᵢ (FU)ᵢ(FW)ᵢ.
#pragma once

#include "arena.h"
#include "calls.h"
#include "gram_products.h"
#include "signs.h"

namespace pmaf {
namespace PMAF_ISA {

constexpr std::ptrdiff_t gram_factor_size(std::ptrdiff_t n) { return n * n + n + 1; }

template <class D, int W>
struct GramSolver {
  using R = Lanes<double, W>;

  const GramCall& call;

  static std::size_t bytes(std::ptrdiff_t n) {
    return (W * (3 * n * n + rows_at_once(int(n)) * n + 2 * n) + 4 * n) * sizeof(double) + 16 * Arena::alignment;
  }

  LeastSquaresItem<D> item(std::int64_t i) const {
    const D* F = static_cast<const D*>(call.F) + i * call.F_stride;
    const D* weights = static_cast<const D*>(call.weights);
    return {call.m, int(call.n), F, F, weights ? weights + i * call.weights_stride : nullptr};
  }

  int operator()(std::int64_t first, int lanes, Arena arena) const {
    const int n = int(call.n), k = int(call.k), at_once = rows_at_once(n);
    R* triangle = arena.take<R>(std::ptrdiff_t(n) * n);
    R* G = arena.take<R>(std::ptrdiff_t(n) * n);
    R* V = arena.take<R>(std::ptrdiff_t(n) * n);
    R* rows = arena.take<R>(std::ptrdiff_t(at_once) * n);
    R* squares = arena.take<R>(n);
    double* u = arena.take<double>(n);
    double* s = arena.take<double>(n);
    int exponents[W];
    bool fine[W];
    for (int l = 0; l < W; l++) {
      fine[l] = l < lanes;
      exponents[l] = 0;
      if (!fine[l]) continue;
      int ignored = 0;
      item_exponents(item(first + l), exponents[l], ignored, fine[l]);
      if (exponents[l] < -1000) exponents[l] = -1000;
    }
    // Lanes without an item, or with one that is not finite, read another one; what they find is not used.
    int usable = -1;
    for (int l = 0; l < W; l++) usable = fine[l] && usable < 0 ? l : usable;
    const D* data[W];
    alignas(64) double scales[W];
    for (int l = 0; l < W; l++) {
      data[l] = usable < 0 ? nullptr : item(first + (fine[l] ? l : usable)).A;
      scales[l] = fine[l] ? times_power(1, -exponents[l]) : 0;
    }
    for (int i = 0; i < n * n; i++) triangle[i] = R(0), V[i] = R(0);
    for (int i = 0; i < n; i++) V[i * n + i] = R(1);
    for (std::int64_t start = 0; usable >= 0 && start < call.m; start += at_once) {
      const int count = int(call.m - start < at_once ? call.m - start : at_once);
      load_rows<D, W>(data, start, count, n, n, scales, rows);
      if (call.weights)
        for (int r = 0; r < count; r++) {
          R root;
          for (int l = 0; l < W; l++) {
            const std::int64_t own = first + (fine[l] ? l : usable);
            root.set(l, fine[l] ? std::sqrt(double(item(own).weights[start + r])) : 0);
          }
          for (int i = 0; i < n; i++) rows[r * n + i] *= root;
        }
      absorb_rows(n, n, count, rows, triangle);
    }
    for (int i = 0; i < n; i++)
      for (int j = 0; j < n; j++) G[j * n + i] = j >= i ? triangle[i * n + j] : R(0);
    const auto unfinished = jacobi(n, G, V, squares);
    int seen = 0;
    for (int l = 0; l < lanes; l++) seen |= put(first + l, l, fine[l], unfinished[l], exponents[l], n, k, V, squares, u, s);
    return seen;
  }

  int put(std::int64_t at, int lane, bool fine, bool unfinished, int exponent, int n, int k, const R* V, const R* squares,
          double* u, double* s) const {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    int order[most_order];
    for (int j = 0; j < n; j++) {  // by insertion: equal ones keep their order
      int i = j;
      const auto before = [&](int a, int b) {
        return call.largest ? squares[a][lane] > squares[b][lane] : squares[a][lane] < squares[b][lane];
      };
      for (; i > 0 && before(j, order[i - 1]); i--) order[i] = order[i - 1];
      order[i] = j;
    }
    D* vectors = static_cast<D*>(call.vectors) + at * n * k;
    D* values = static_cast<D*>(call.values) + at * k;
    double norm = 0, worst = 0;
    for (int j = 0; j < n; j++) norm = squares[j][lane] > norm ? squares[j][lane] : norm;
    double* factor = call.factor ? call.factor + at * gram_factor_size(n) : nullptr;
    for (int c = 0; c < n; c++) {
      const R* column = V + std::ptrdiff_t(order[c]) * n;
      double length = 0;
      for (int i = 0; i < n; i++) length += column[i][lane] * column[i][lane];
      length = 1 / std::sqrt(length);  // rotations leave it within n roundings of one
      for (int i = 0; i < n; i++) u[i] = column[i][lane] * length;
      if (c < k) {
        const double side = fine ? sign(at, c, n, u) : 1;
        for (int i = 0; i < n; i++) u[i] *= side;
        for (int i = 0; i < n; i++) vectors[i * k + c] = D(fine ? u[i] : nan);
        values[c] = D(fine ? times_power(std::sqrt(squares[order[c]][lane]), exponent) : nan);
        if (fine) {
          for (int i = 0; i < n; i++) u[i] = double(vectors[i * k + c]);
          const double residual =
              measure(item(at), times_power(1, -exponent), 0, 1, u, -squares[order[c]][lane], s).residual;
          worst = residual > worst ? residual : worst;
          for (int i = 0; i < n; i++) u[i] = column[i][lane] * (length * side);
        }
      }
      if (factor)
        for (int i = 0; i < n; i++) factor[c * n + i] = u[i];
      if (factor) factor[n * n + c] = std::sqrt(squares[order[c]][lane]);
    }
    if (factor) factor[n * n + n] = exponent;
    const double root = times_power(std::sqrt(norm), exponent);
    static_cast<D*>(call.norm)[at] = D(fine ? root : nan);
    static_cast<D*>(call.next)[at] = D(fine && k < n ? times_power(std::sqrt(squares[order[k]][lane]), exponent) : nan);
    static_cast<D*>(call.residual)[at] = D(!fine ? nan : norm > 0 ? worst / norm : 0);
    const int code = !fine ? GRAM_NOT_FINITE : unfinished ? GRAM_INACCURATE : GRAM_FINE;
    call.code[at] = code;
    return code;
  }

  // ±1, so that the inner product with the reference is not negative.
  double sign(std::int64_t at, int column, int n, const double* u) const {
    const D* reference = static_cast<const D*>(call.reference);
    double first = 0, second = 0, size = 0;
    for (int i = 0; i < n; i++) {
      const double own =
          reference ? double(reference[at * call.reference_stride + i * call.reference_columns +
                                       (call.reference_columns > 1 ? column : 0)])
                    : 1;
      first += own * u[i];
      size += own * own;
      second += deciding_number(i) * u[i];
    }
    const bool decides = std::fabs(first) > 64 * double(epsilon<D>) * std::sqrt(size);
    return (decides ? first : second) < 0 ? -1 : 1;
  }

  static constexpr int most_order = 256;
};

template <class D>
struct GramGradient {
  const GramGradientCall& call;

  static std::size_t bytes(std::ptrdiff_t n, std::ptrdiff_t k) {
    return (2 * n * k + gradient_room(n)) * sizeof(double) + 8 * Arena::alignment;
  }

  int operator()(std::int64_t at, int, Arena arena) const {
    const int n = int(call.n), k = int(call.k);
    double* U = arena.take<double>(std::ptrdiff_t(n) * k);
    double* W = arena.take<double>(std::ptrdiff_t(n) * k);
    double* room = arena.take<double>(gradient_room(n));
    const double* factor = call.factor + at * gram_factor_size(n);
    const double* sigma = factor + n * n;
    const bool good = !(call.code[at] & GRAM_NOT_FINITE);
    const int exponent = int(factor[n * n + n]);
    const D* H = static_cast<const D*>(call.vectors_cotangent);
    const D* along = static_cast<const D*>(call.values_cotangent);
    const D* vectors = static_cast<const D*>(call.vectors) + at * n * k;
    double norm = 0;
    for (int j = 0; j < n; j++) norm = sigma[j] > norm ? sigma[j] : norm;
    const double close = call.rtol * norm, down = times_power(1, -2 * exponent);
    for (int c = 0; c < k; c++) {
      double* w = W + std::ptrdiff_t(c) * n;
      for (int i = 0; i < n; i++) U[c * n + i] = good ? double(vectors[i * k + c]) : 0, w[i] = 0;
      if (!good) continue;
      for (int j = 0; H && j < n; j++) {
        const double difference = sigma[c] - sigma[j];
        if (j == c || !(std::fabs(difference) > close)) continue;
        const double* v = factor + std::ptrdiff_t(j) * n;
        double part = 0;
        for (int i = 0; i < n; i++) part += v[i] * double(H[(at * n + i) * k + c]);
        part = part / difference / (sigma[c] + sigma[j]) * down;
        for (int i = 0; i < n; i++) w[i] += part * v[i];
      }
      if (call.W)
        for (int i = 0; i < n; i++) static_cast<D*>(call.W)[(at * n + i) * k + c] = D(w[i]);
      if (along)
        for (int i = 0; i < n; i++) w[i] += double(along[at * k + c]) * U[c * n + i];
    }
    if (call.F_gradient || call.weights_gradient) {
      const D* weights = static_cast<const D*>(call.weights);
      D* to = static_cast<D*>(call.F_gradient);
      D* to_weights = static_cast<D*>(call.weights_gradient);
      const std::ptrdiff_t item = at * call.m * n;
      write_gradient(call.m, n, k, good, static_cast<const D*>(call.F) + at * call.F_stride,
                     weights ? weights + at * call.weights_stride : nullptr, U, W, to ? to + item : nullptr,
                     to_weights ? to_weights + at * call.m : nullptr, room);
    }
    return 0;
  }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
