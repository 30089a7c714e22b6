// minimise ½uᵀQu − gᵀu subject to ‖u‖ = r (or ≤ r), Q = AᵀWA and g = AᵀWb, or Q = H and g given; units: sphere_item.h.
//
// Solve. Q' = Q̃ T Q̃ᵀ; λ₁ and v₁ of T; the root of the secular equation (secular_tridiagonal.h); Newton steps on
// stationarity and length in the basis, which also bring back the digits that λ lacks close to the pole; then the residual
//
//     s = g − (Q + λI)u,  measured on the data in double precision,
//
// and further Newton steps from it. A step is kept only if it lowers the residual.
//
// The hard case. g has no part along v₁ and φ(0⁺) < 1: λ = −λ₁ and u = p + τv₁ with ‖u‖ = 1, in the direction that has a
// non-negative inner product with the all-ones vector, or, where that product is rounding, with a fixed generic one.
#pragma once

#include "arena.h"
#include "secular_tridiagonal.h"
#include "signs.h"
#include "sphere_basis.h"
#include "sphere_item.h"

namespace pmaf {
namespace PMAF_ISA {

constexpr int polish_rounds = 4;

// Solves blocks of Basis::width items. D: the type of the data; C: the type it is computed in.
template <class D, class C, class Basis, bool quadratic>
struct SphereSolver {
  static constexpr int W = Basis::width;
  using R = typename Basis::R;
  using M = typename R::mask;
  static constexpr bool is_complex = Basis::is_complex;

  const SphereCall& call;
  int n;  // real unknowns

  static std::size_t bytes(std::ptrdiff_t n) {
    const std::ptrdiff_t stride = padded<C>(n);
    const std::ptrdiff_t numbers = Basis::memory(n) + W * stride * stride + stride + (row_block + 3) * stride + 2 * row_block + 16 * n * W;
    return numbers * sizeof(C) + 4 * n * W * sizeof(double) + 32 * Arena::alignment;
  }

  static R lanes_of(const C* x) { return R::load(x); }

  int operator()(std::int64_t first, int lanes, Arena arena) const {
    const std::ptrdiff_t stride = padded<C>(n);
    Basis basis(n, arena.take<C>(Basis::memory(n)));
    C* G = arena.take<C>(W * stride * stride);
    C* g = arena.take<C>(stride);
    C* rows = arena.take<C>((row_block + 2) * stride + 2 * row_block);
    const auto vector = [&](int count) { return arena.take<R>(std::ptrdiff_t(count) * n); };
    R *gamma = vector(1), *x = vector(1), *p = vector(1), *v = vector(1), *pivots = vector(2), *step = vector(1),
      *scratch = vector(5), *candidate = vector(1), *original = vector(1);
    double* u = arena.take<double>(n);
    double* s = arena.take<double>(n);

    // The items in their units.
    ItemUnits units[W];
    alignas(64) C sigmas[W];
    for (int l = 0; l < W; l++) {
      C* own = G + l * stride * stride;
      if (l < lanes) units[l] = load(first + l, own, g, rows);
      else units[l].fine = false;
      if (!units[l].fine) trivial(own, g);
      for (int i = 0; i < n; i++) gamma[i].set(l, g[i]);
      sigmas[l] = C(units[l].sigma);
    }
    basis.load(G, stride);

    // The tridiagonal form, its ends and its first vector.
    basis.factorise();
    basis.apply_adjoint(gamma);
    const R zero(0), one(1), eps(epsilon<C>);
    const int order = is_complex ? n / 2 : n;  // of the block of T that tells its spectrum
    R low, high;
    gershgorin(order, basis.d, basis.e, low, high);
    const R bound = max(abs(low), abs(high));
    Tridiagonal<R> T{n, basis.d, basis.e, select(bound > zero, bound, one), zero};
    T.floor = T.norm * (eps * eps);
    const auto block = [&] { return Tridiagonal<R>{order, T.d, T.e, T.norm, T.floor}; };
    R smallest = smallest_eigenvalue(block(), low);
    Twisted<R> twisted;
    twisted.factorise(block(), -smallest, pivots);
    twisted.vector(v);
    R square = zero;
    for (int i = 0; i < order; i++) square = fma(v[i], v[i], square);
    smallest = smallest + twisted.gamma / square;
    const R inverse_length = one / sqrt(square);
    for (int i = 0; i < order; i++) v[i] = v[i] * inverse_length;
    if constexpr (is_complex) turn(v, gamma, order);
    for (int i = 0; i < order; i++) p[i] = -basis.d[i];
    const Tridiagonal<R> negated{order, p, basis.e, T.norm, T.floor};
    const R largest = -smallest_eigenvalue(negated, -high, C(1e-3));
    const R matrix_norm = max(abs(smallest), abs(largest));

    // Q'' = σQ'.
    const R sigma = lanes_of(sigmas), spread = (largest - smallest) * sigma;
    for (int i = 0; i < n; i++) basis.d[i] = basis.d[i] * sigma;
    for (int i = 0; i < n - 1; i++) basis.e[i] = basis.e[i] * sigma;
    smallest = smallest * sigma;
    T.norm = T.norm * sigma;
    T.floor = T.floor * sigma;
    const R norm = matrix_norm * sigma;

    // The secular equation.
    R along = zero, length = zero;
    for (int i = 0; i < n; i++) {
      along = fma(v[i], gamma[i], along);
      length = fma(gamma[i], gamma[i], length);
    }
    length = sqrt(length);
    const Root<R> root = secular(T, gamma, smallest, abs(along), length, spread, p, scratch);
    R t = root.t, squared = zero, across = zero;
    for (int i = 0; i < n; i++) {
      squared = fma(p[i], p[i], squared);
      across = fma(p[i], v[i], across);
    }
    const R scale = one / sqrt(select(squared > zero, squared, one));
    for (int i = 0; i < n; i++) x[i] = p[i] * scale;
    if (any(root.hard)) {
      const R side = chosen_side(basis, v, scratch);
      const R across_side = across * side;
      const R fill = sqrt(max(fma(across_side, across_side, one - squared), zero)) - across_side;
      for (int i = 0; i < n; i++) x[i] = select(root.hard, fma(v[i], side * fill, p[i]), x[i]);
    }
    R lambda = t - smallest;

    // Eigenvalues up to here count as zero; squares of singular values are known to the square of what those are.
    const C rtol = C(call.rtol), squared_rtol = rtol * rtol > 4 * epsilon<C> ? rtol * rtol : 4 * epsilon<C>;
    const R limit = norm * R(quadratic ? rtol : squared_rtol);
    R repeats = one;
    if (any(t <= limit)) repeats = count_below(block(), smallest + limit);

    // The inside of the ball: p = Q⁻¹g if that is short; where Q has one null vector, the solution orthogonal to it.
    M inside = zero > one, unsure = inside, singular = inside;
    if (call.ball) {
      twisted.factorise(T, zero, pivots);
      plain(twisted, gamma, p, scratch);
      R reach = zero, across_null = zero;
      for (int i = 0; i < n; i++) reach = fma(p[i], p[i], reach);
      inside = (smallest > limit) & (reach <= one);
      unsure = (abs(smallest) <= limit) & (lambda <= limit);
      if (any(unsure)) {
        twisted.factorise(T, -smallest, pivots);
        R ignored;
        twisted.bordered(v, gamma, zero, zero > one, candidate, ignored, scratch);
        for (int i = 0; i < n; i++) across_null = fma(candidate[i], candidate[i], across_null);
        singular = unsure & (repeats == one) & (across_null <= one);
        for (int i = 0; i < n; i++) p[i] = select(singular, candidate[i], p[i]);
        unsure = unsure & ~singular;
        inside = inside | singular;
      }
      for (int i = 0; i < n; i++) x[i] = select(inside, p[i], x[i]);
      lambda = select(inside, zero, lambda);
      t = select(inside, smallest, t);
    }
    polish(T, gamma, inside, singular, twisted, pivots, x, lambda, t, step, candidate, scratch);
    const R enough = (norm + abs(lambda)) * R(8 * epsilon<C>);
    const R rest = stationarity(T, gamma, x, lambda, step);
    const M poor = (rest > enough * enough) & (t < norm * R(C(1e-2))) & ~inside;
    if (any(poor)) {
      const R side = chosen_side(basis, v, scratch);
      R near = t;
      for (int i = 0; i < n; i++) candidate[i] = x[i];
      const M solved = secular_at_pole(T, gamma, v, smallest, length, side, poor, candidate, near, pivots, scratch);
      R size = zero;
      for (int i = 0; i < n; i++) size = fma(candidate[i], candidate[i], size);
      size = one / sqrt(select(size > zero, size, one));
      for (int i = 0; i < n; i++) candidate[i] = candidate[i] * size;
      const M better = solved & (stationarity(T, gamma, candidate, near - smallest, step) < rest);
      for (int i = 0; i < n; i++) x[i] = select(better, candidate[i], x[i]);
      lambda = select(better, near - smallest, lambda);
      t = select(better, near, t);
    }

    // Measured on the data.
    double lambdas[W], gaps[W], best[W], tried_lambda[W];
    Measured measured[W];
    bool settled[W];
    for (int l = 0; l < W; l++) {
      lambdas[l] = tried_lambda[l] = double(lambda[l]);
      gaps[l] = double(t[l]);
      settled[l] = !units[l].fine;
      best[l] = -1;
    }
    for (int i = 0; i < n; i++) original[i] = x[i];
    basis.apply(original);
    constexpr bool same = sizeof(C) == sizeof(D);
    const int rounds = same ? 3 : 1;
    for (int round = 0; round < rounds; round++) {
      alignas(64) C lower[W];
      bool another = false;
      for (int l = 0; l < W; l++) {
        lower[l] = 0;
        if (settled[l]) continue;
        const double r = units[l].radius;
        double size = 0;
        for (int i = 0; i < n; i++) size += double(original[i][l]) * double(original[i][l]);
        const double inverse = inside[l] ? 1 : 1 / std::sqrt(size);
        for (int i = 0; i < n; i++) u[i] = double(D(double(original[i][l]) * inverse * r)) / r;
        const Measured now = residual(first + l, units[l], u, tried_lambda[l], s);
        const double size_of_all = double(norm[l]) + std::fabs(lambdas[l]);
        const bool global = gaps[l] + (tried_lambda[l] - lambdas[l]) >= -2 * double(epsilon<C>) * size_of_all;
        const bool feasible = !inside[l] || size <= 1 + 4 * double(epsilon<D>);
        if (best[l] >= 0 && !(now.residual < best[l] && global && feasible)) {
          settled[l] = true;
          continue;
        }
        best[l] = now.residual;
        measured[l] = now;
        gaps[l] += tried_lambda[l] - lambdas[l];
        lambdas[l] = tried_lambda[l];
        D* out = static_cast<D*>(call.u) + (first + l) * n;
        size = 0;
        for (int i = 0; i < n; i++) {
          out[place<is_complex>(n, i)] = D(u[i] * r);
          size += u[i] * u[i];
          x[i].set(l, C(u[i]));
          step[i].set(l, C(s[i]));
        }
        lower[l] = C((1 - size) / 2);
        settled[l] = singular[l] || now.residual <= 0.5 * double(epsilon<D>) * size_of_all;
        another = another || !settled[l];
      }
      if (round + 1 == rounds || !another) break;
      alignas(64) C shift[W];
      for (int l = 0; l < W; l++) shift[l] = C(lambdas[l]);
      basis.apply_adjoint(step);
      for (int i = 0; i < n; i++) candidate[i] = x[i];
      basis.apply_adjoint(candidate);
      twisted.factorise(T, lanes_of(shift), pivots);
      R change;
      twisted.bordered(candidate, step, lanes_of(lower), inside, step, change, scratch);
      for (int l = 0; l < W; l++) tried_lambda[l] = inside[l] ? 0 : lambdas[l] + double(change[l]);
      basis.apply(step);
      for (int i = 0; i < n; i++) original[i] = x[i] + step[i];
    }

    // What is known of each item.
    if (call.factor) {
      for (int i = 0; i < n; i++) candidate[i] = x[i];
      basis.apply_adjoint(candidate);
      C* factor = static_cast<C*>(call.factor) + first * factor_size<Basis>(n);
      basis.put(lanes, factor, factor_size<Basis>(n));
    }
    int seen = 0;
    for (int l = 0; l < lanes; l++) {
      Report report{};
      report.steps = static_cast<int>(root.steps[l]);
      report.lambda = lambdas[l];
      report.gap = gaps[l] > 0 ? gaps[l] : 0;
      report.smallest = double(smallest[l]);
      report.norm = double(norm[l]);
      report.inside = inside[l];
      report.unsure = unsure[l];
      report.repeated = repeats[l] > 1 || singular[l];
      report.computed_in_own_type = same;
      if (units[l].fine) report.measured = measured[l];
      seen |= put<D>(call, quadratic, first + l, units[l], report);
      if (call.factor) {
        C* to = static_cast<C*>(call.factor) + (first + l) * factor_size<Basis>(n) + Basis::size(n);
        for (int i = 0; i < n; i++) to[i] = candidate[i][l];
        to[n] = C(report.lambda);
        to[n + 1] = C(units[l].alpha);
        to[n + 2] = C(units[l].up);
        to[n + 3] = C(inside[l]);
      }
    }
    return seen;
  }

  ItemUnits load(std::int64_t item, C* G, C* g, C* rows) const {
    const double radius = static_cast<const D*>(call.radius)[item * call.radius_stride];
    const auto take = [&](const auto& data) {
      const ItemUnits units = units_of<D>(data, radius, quadratic);
      if (units.fine) normal_equations(data, units.matrix, units.right, G, g, rows);
      return units;
    };
    return take(item_of<D, quadratic, is_complex>(call, item));
  }

  // A lane without an item, or with one that is not finite: Q = 0, g = e₁.
  void trivial(C* G, C* g) const {
    const std::ptrdiff_t size = padded<C>(n);
    for (std::ptrdiff_t i = 0; i < size * size; i++) G[i] = 0;
    for (int i = 0; i < n; i++) g[i] = C(i == 0);
  }

  Measured residual(std::int64_t item, const ItemUnits& units, const double* u, double lambda, double* s) const {
    const auto data = item_of<D, quadratic, is_complex>(call, item);
    return measure(data, units.matrix, units.right, units.sigma, u, lambda, s);
  }

  // v₁ ∈ ℝⁿ to the eigenvector e^{iθ}v₁ along which the part of γ in its space lies.
  static void turn(R* v, const R* gamma, int order) {
    const R zero(0), one(1);
    R re = zero, im = zero;
    for (int i = 0; i < order; i++) {
      re = fma(v[i], gamma[i], re);
      im = fma(v[i], gamma[order + i], im);
    }
    const R length = sqrt(fma(re, re, im * im)), inverse = one / select(length > zero, length, one);
    const R cosine = select(length > zero, re * inverse, one), sine = im * inverse;
    for (int i = 0; i < order; i++) {
      v[order + i] = v[i] * sine;
      v[i] = v[i] * cosine;
    }
  }

  // ±1: the direction of v₁ by the reference vectors. Memory: n vectors.
  R chosen_side(const Basis& basis, const R* v, R* memory) const {
    for (int i = 0; i < n; i++) memory[i] = v[i];
    basis.apply(memory);
    R plain_sum(0), generic(0);
    for (int i = 0; i < n; i++) {
      plain_sum += memory[i];
      generic = fma(memory[i], R(C(deciding_number(i))), generic);
    }
    const R noise = R(C(64 * epsilon<C> * std::sqrt(double(n))));
    const R decisive = select(abs(plain_sum) > noise, plain_sum, generic);
    return select(decisive < R(0), R(-1), R(1));
  }

  // w = M⁻¹h.
  static void plain(const Twisted<R>& twisted, const R* h, R* w, R* memory) {
    twisted.eliminate(h, w, memory);
    R alpha(0);
    for (int i = 0; i < twisted.n; i++) alpha = select(R(C(i)) == twisted.r, w[i], alpha);
    twisted.substitute(alpha / twisted.gamma, w);
  }

  // ‖h‖² for h = γ − (T + λI)x.
  static R stationarity(const Tridiagonal<R>& T, const R* gamma, const R* x, R lambda, R* h) {
    R square(0);
    multiply(T, lambda, x, h);
    for (int i = 0; i < T.n; i++) {
      h[i] = gamma[i] - h[i];
      square = fma(h[i], h[i], square);
    }
    return square;
  }

  // Newton steps on (T + λI)x = γ, ‖x‖ = 1, each kept only if it lowers the residual and does not leave the ball.
  void polish(const Tridiagonal<R>& T, const R* gamma, M inside, M singular, Twisted<R>& twisted, R* pivots, R* x, R& lambda, R& t,
              R* step, R* candidate, R* memory) const {
    const R zero(0), half(C(0.5)), one(1);
    R before = stationarity(T, gamma, x, lambda, step);
    const R enough = (T.norm + abs(lambda)) * R(4 * epsilon<C>);
    if (!any(before > enough * enough)) return;
    for (int round = 0; round < polish_rounds; round++) {
      R size = zero, change;
      for (int i = 0; i < n; i++) size = fma(x[i], x[i], size);
      twisted.factorise(T, lambda, pivots);
      twisted.bordered(x, step, (one - size) * half, inside, step, change, memory);
      change = select(inside, zero, change);
      size = zero;
      for (int i = 0; i < n; i++) {
        candidate[i] = x[i] + step[i];
        size = fma(candidate[i], candidate[i], size);
      }
      const R scale = select(inside, one, one / sqrt(size));
      for (int i = 0; i < n; i++) candidate[i] = candidate[i] * scale;
      const R after = stationarity(T, gamma, candidate, lambda + change, step);
      const M feasible = ~inside | (size <= one + R(4 * epsilon<C>));
      const auto better = (after < before) & (t + change >= zero) & feasible & ~singular;
      for (int i = 0; i < n; i++) x[i] = select(better, candidate[i], x[i]);
      lambda = select(better, lambda + change, lambda);
      t = select(better, t + change, t);
      if (round + 1 == polish_rounds || !any(better)) break;
      before = stationarity(T, gamma, x, lambda, step);
    }
  }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
