// Least squares on the sphere for items that the Gram matrix cannot vouch for: rank-deficient, m < n, or with a gap near
// the rounding of ‖A‖². Singular values and right vectors of A (jacobi.h) keep the digits that squaring loses.
//
// With A = UΣVᵀ, d = σ², γⱼ = σⱼuⱼᵀb and δ = d − d_min the secular equation reads φ(t)² = Σ γⱼ²/(δⱼ + t)² = 1, t = λ + d_min.
// Values within the tolerance of the smallest are one group: where its γ are roundings they are zero, and if then φ(0) < 1 the
// missing length goes along the group's part of the all-ones vector (or of a generic one). Inside the ball the solution of
// least norm is γⱼ/dⱼ over values above the tolerance.
#pragma once

#include "arena.h"
#include "jacobi.h"
#include "signs.h"
#include "sphere_basis.h"
#include "sphere_item.h"

namespace pmaf {
namespace PMAF_ISA {

// The singular values, right vectors and uⱼᵀb·σⱼ of W items side by side.
template <class D, int W>
struct SingularBasis {
  using R = Lanes<double, W>;
  int n;
  R *G, *V, *squares, *triangle, *rows;

  static std::ptrdiff_t memory(std::ptrdiff_t n) {  // in numbers, with what aligns them
    return W * (2 * n * n + n + n * (n + 1) + rows_at_once(int(n)) * (n + 1)) + 5 * 8;
  }

  SingularBasis(int order, Arena& arena) : n(order) {
    const std::ptrdiff_t square = std::ptrdiff_t(n) * n;
    G = arena.take<R>(square);
    V = arena.take<R>(square);
    squares = arena.take<R>(n);
    triangle = arena.take<R>(square + n);
    rows = arena.take<R>(std::ptrdiff_t(rows_at_once(n)) * (n + 1));
  }

  // `item` gives the data of a lane, `matrix` and `right` its scales. Returns the lanes that did not come to an end.
  template <class Item>
  typename R::mask factorise(int lanes, std::ptrdiff_t m, const Item& item, const double* matrix, const double* right) {
    const int width = n + 1, at_once = rows_at_once(n);
    const D* data[W];
    alignas(64) double scales[W];
    for (int l = 0; l < W; l++) data[l] = item(l < lanes ? l : 0).A, scales[l] = matrix[l < lanes ? l : 0];
    for (std::ptrdiff_t i = 0; i < std::ptrdiff_t(n) * width; i++) triangle[i] = R(0.0);
    for (std::ptrdiff_t i = 0; i < std::ptrdiff_t(n) * n; i++) V[i] = R(0.0);
    for (int i = 0; i < n; i++) V[std::ptrdiff_t(i) * n + i] = R(1.0);
    for (std::ptrdiff_t start = 0; start < m; start += at_once) {
      const int count = int(m - start < at_once ? m - start : at_once);
      load_rows<D, W>(data, start, count, n, width, scales, rows);
      for (int r = 0; r < count; r++) {
        R root(1.0), y;
        for (int l = 0; l < W; l++) {
          const LeastSquaresItem<D> own = item(l < lanes ? l : 0);
          if (own.weights) root.set(l, std::sqrt(double(own.weights[start + r])));
          y.set(l, double(own.b[start + r]) * right[l]);
        }
        for (int i = 0; i < n; i++) rows[r * width + i] *= root;
        rows[r * width + n] = y * root;
      }
      absorb_rows(n, width, count, rows, triangle);
    }
    for (int i = 0; i < n; i++)
      for (int j = 0; j < n; j++) G[j * n + i] = j >= i ? triangle[i * width + j] : R(0.0);
    return jacobi(n, G, V, squares);
  }

  // γⱼ = gⱼᵀy of one lane.
  double product(int lane, int j) const {
    double total = 0;
    for (int i = 0; i < n; i++) total += G[std::ptrdiff_t(j) * n + i][lane] * triangle[std::ptrdiff_t(i) * (n + 1) + n][lane];
    return total;
  }
};

// The root t ≥ 0 of Σ γ²/(δ + t)² = 1; 0 where it is less than one there (entries with γ = 0 do not count).
inline double secular_root(int n, const double* delta, const double* gamma, int& steps) {
  double t = 0, high = 0;
  for (int j = 0; j < n; j++) {
    const double lower = std::fabs(gamma[j]) - delta[j];
    t = lower > t ? lower : t;
    high += gamma[j] * gamma[j];
  }
  high = std::sqrt(high) * (1 + 1e-15);
  double low = 0;
  for (steps = 1; steps < 100; steps++) {
    double squared = 0, slope = 0;
    for (int j = 0; j < n; j++) {
      if (gamma[j] == 0) continue;
      const double p = gamma[j] / (delta[j] + t);
      squared += p * p;
      slope += p * p / (delta[j] + t);
    }
    const double phi = std::sqrt(squared);
    if (t == 0 && phi < 1) return 0;
    (phi >= 1 ? low : high) = t;
    if (std::fabs(phi - 1) <= 4e-16 || !(slope > 0)) break;
    double next = t + (phi - 1) * squared / slope;
    if (!(next >= low && next <= high)) next = low > 0 ? std::sqrt(low) * std::sqrt(high) : high / 64;
    if (std::fabs(next - t) <= 2e-16 * t) break;
    t = next;
  }
  return t;
}

template <class D, int W>
struct SingularSolver {
  const SphereCall& call;
  const std::int64_t* items;

  static std::size_t bytes(std::ptrdiff_t n) {
    return (SingularBasis<D, W>::memory(n) + 6 * n) * sizeof(double) + 24 * Arena::alignment;
  }

  int operator()(std::int64_t first, int lanes, Arena arena) const {
    const int n = int(call.n);
    SingularBasis<D, W> basis(n, arena);
    double* room = arena.take<double>(6 * std::ptrdiff_t(n));
    ItemUnits units[W];
    double matrix[W], right[W];
    for (int l = 0; l < W; l++) {
      const std::int64_t item = items[first + (l < lanes ? l : 0)];
      units[l] = units_of<D>(item_of<D, false, false>(call, item),
                             static_cast<const D*>(call.radius)[item * call.radius_stride], false);
      matrix[l] = units[l].matrix, right[l] = units[l].right;
    }
    const auto item = [&](int l) { return item_of<D, false, false>(call, items[first + l]); };
    const auto unfinished = basis.factorise(lanes, call.m, item, matrix, right);
    int seen = 0;
    for (int l = 0; l < lanes; l++)
      if (!unfinished[l]) seen |= solve(items[first + l], l, units[l], basis, room);
    return seen;
  }

  int solve(std::int64_t at, int lane, const ItemUnits& units, const SingularBasis<D, W>& basis, double* room) const {
    const int n = basis.n;
    double *d = room, *gamma = d + n, *delta = gamma + n, *p = delta + n, *u = p + n, *s = u + n;
    double norm = 0, smallest = 0, length = 0;
    for (int j = 0; j < n; j++) {
      d[j] = basis.squares[j][lane] * units.sigma;
      norm = d[j] > norm ? d[j] : norm;
      smallest = j == 0 || d[j] < smallest ? d[j] : smallest;
      length += basis.triangle[std::ptrdiff_t(j) * (n + 1) + n][lane] * basis.triangle[std::ptrdiff_t(j) * (n + 1) + n][lane];
    }
    const double size = units.sigma > 0 ? std::sqrt(norm / units.sigma) : 0;  // ‖A'‖
    const double noise = 4 * std::sqrt(double(n)) * epsilon<double> * size * std::sqrt(length);
    const double root = std::sqrt(norm) * call.rtol;
    const double limit = root * (std::sqrt(smallest) > root ? std::sqrt(smallest) : root);
    for (int j = 0; j < n; j++) {
      delta[j] = d[j] - smallest;
      gamma[j] = basis.product(lane, j);
      if (delta[j] <= limit && std::fabs(gamma[j]) <= noise) gamma[j] = 0;
    }
    Report report{};
    double t = secular_root(n, delta, gamma, report.steps);
    double squared = 0;
    for (int j = 0; j < n; j++) {
      p[j] = gamma[j] == 0 ? 0 : gamma[j] / (delta[j] + t);
      squared += p[j] * p[j];
    }
    if (t == 0) fill(lane, basis, delta, limit, 1 - squared, p, u);
    double lambda = t - smallest, gap = t;
    int small = 0;
    for (int j = 0; j < n; j++) small += delta[j] <= limit;
    bool inside = false;
    if (call.ball && (gap > limit ? lambda <= 0 : lambda <= limit)) {
      inside = true;
      lambda = 0, gap = smallest;
      for (int j = 0; j < n; j++) p[j] = d[j] > limit ? basis.product(lane, j) / d[j] : 0;
    }
    for (int i = 0; i < n; i++) u[i] = 0;
    for (int j = 0; j < n; j++)
      for (int i = 0; i < n; i++) u[i] += basis.V[std::ptrdiff_t(j) * n + i][lane] * p[j];
    double whole = 0;
    for (int i = 0; i < n; i++) whole += u[i] * u[i];
    const double r = units.radius;
    double scale = 1 / std::sqrt(whole);
    if (inside && !(whole > 1)) scale = 1;
    D* out = static_cast<D*>(call.u) + at * n;
    for (int i = 0; i < n; i++) {
      out[i] = D(u[i] * scale * r);
      u[i] = double(out[i]) / r;
    }
    report.measured = measure(item_of<D, false, false>(call, at), units.matrix, units.right, units.sigma, u, lambda, s);
    report.lambda = lambda;
    report.gap = gap;
    report.smallest = smallest;
    report.norm = norm;
    report.inside = inside;
    report.repeated = small > 1;
    report.singular = true;
    const int code = put<D>(call, false, at, units, report) | SPHERE_SINGULAR;
    call.code[at] = code & ~SPHERE_REPEATED;
    if (call.factor) {
      const double tolerance = tolerance_of(call, false, units, report);
      if (n <= most_widened || sizeof(D) == 8) keep(static_cast<double*>(call.factor), at, t, tolerance, units, inside);
      else keep(static_cast<D*>(call.factor), at, t, tolerance, units, inside);
    }
    return code & ~SPHERE_REPEATED;
  }

  // What the gradient starts from.
  template <class C>
  void keep(C* factors, std::int64_t at, double t, double tolerance, const ItemUnits& units, bool inside) const {
    C* own = factors + at * factor_size(call.n);
    own[0] = C(t);
    own[1] = C(tolerance);
    C* last = own + basis_size(call.n) + call.n;
    last[1] = C(units.alpha), last[2] = C(units.up), last[3] = C(inside);
  }

  // Adds what is missing of length one along the group's part of the reference. Memory: n numbers.
  void fill(int lane, const SingularBasis<D, W>& basis, const double* delta, double limit, double missing, double* p,
            double* memory) const {
    const int n = basis.n;
    for (int attempt = 0; attempt < 2; attempt++) {
      double size = 0, across = 0;
      for (int j = 0; j < n; j++) {
        memory[j] = 0;
        if (!(delta[j] <= limit)) continue;
        for (int i = 0; i < n; i++)
          memory[j] += basis.V[std::ptrdiff_t(j) * n + i][lane] * (attempt == 0 ? 1 : deciding_number(i));
        size += memory[j] * memory[j];
        across += memory[j] * p[j];
      }
      if (attempt == 0 && !(std::sqrt(size) > 64 * epsilon<D> * std::sqrt(double(n)))) continue;
      size = 1 / std::sqrt(size > 0 ? size : 1);
      across *= size;
      const double root = across * across + missing;
      const double step = (std::sqrt(root > 0 ? root : 0) - across) * size;
      for (int j = 0; j < n; j++) p[j] += step * memory[j];
      return;
    }
  }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
