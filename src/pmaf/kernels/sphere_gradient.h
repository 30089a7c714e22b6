// Gradients on the sphere from the factor that the forward pass left: with cotangents ū and λ̄,
//
//     [ Q + λI  u ] [ w ]   [ ū ]
//     [ uᵀ      0 ] [ μ ] = [ λ̄ ]        (inside the ball: (Q + λI)w = ū, μ = −λ̄)
//
// in O(n) between two applications of Q̃, and with v = Aw, ρ = b − Au
//
//     Ā = Wρ wᵀ − Wv uᵀ,  b̄ = Wv,  W̄ = v ρ,  r̄ = μ r;        H̄ = −½(w uᵀ + u wᵀ),  ḡ = w
//
// in one pass over the data. In the units of the forward pass, κ = 4^α/σ (quadratic: 2^α/σ): ŵ = κw and μ̂ = μr solve the
// system with Q'' + λ''I and u/r for the right-hand sides ū and κλ̄/r.
//
// Where the factor is in the precision of float data, one step of refinement takes the residual in double precision.
#pragma once

#include "sphere.h"

namespace pmaf {
namespace PMAF_ISA {

template <class D>
PMAF_INLINE double dot(int n, const D* a, const double* x) {
  constexpr int W = full_width<double>;
  using V = Lanes<double, W>;
  V total(0.0);
  double tail = 0;
  int j = 0;
  for (; j + W <= n; j += W) total = fma(load_as<double, W>(a + j), V::load(x + j), total);
  for (; j < n; j++) tail += double(a[j]) * x[j];
  return sum(total) + tail;
}

// to = p·x + q·y
template <class D>
PMAF_INLINE void combine(int n, double p, const double* x, double q, const double* y, D* to) {
  constexpr int W = full_width<double>;
  using V = Lanes<double, W>;
  const V vp(p), vq(q);
  int j = 0;
  for (; j + W <= n; j += W) store_as<D>(to + j, fma(vp, V::load(x + j), vq * V::load(y + j)));
  for (; j < n; j++) to[j] = D(p * x[j] + q * y[j]);
}

template <class D, class C, class Basis, bool quadratic>
struct SphereGradient {
  static constexpr int W = Basis::width;
  using R = typename Basis::R;
  static constexpr bool is_complex = Basis::is_complex;

  const SphereGradientCall& call;
  int n;  // real unknowns

  static std::size_t bytes(std::ptrdiff_t n) {
    return (Basis::memory(n) + 10 * n * W) * sizeof(C) + (n * W + 3 * n) * sizeof(double) + 32 * Arena::alignment;
  }

  auto data_of(std::int64_t i) const { return item_of<D, quadratic, is_complex>(call, i); }

  int operator()(std::int64_t first, int lanes, Arena arena) const {
    Basis basis(n, arena.take<C>(Basis::memory(n)));
    const auto vector = [&](int count) { return arena.take<R>(std::ptrdiff_t(count) * n); };
    R *border = vector(1), *h = vector(1), *pivots = vector(2), *scratch = vector(3), *total = vector(1);
    double* w = arena.take<double>(n);
    double* s = arena.take<double>(n);
    double* u = arena.take<double>(n);
    const C* factors = static_cast<const C*>(call.factor) + first * factor_size<Basis>(n);
    basis.take(lanes, factors, factor_size<Basis>(n));
    alignas(64) C lambdas[W], lower[W], inactive[W];
    double kappa[W], radius[W];
    for (int l = 0; l < W; l++) {
      const std::int64_t item = first + (l < lanes ? l : 0);
      const C* own = factors + (item - first) * factor_size<Basis>(n) + Basis::size(n);
      for (int i = 0; i < n; i++) border[i].set(l, own[i]);
      lambdas[l] = own[n];
      inactive[l] = own[n + 3];
      kappa[l] = times_power(1.0, int((quadratic ? 1 : 2) * own[n + 1] + own[n + 2]));
      radius[l] = static_cast<const D*>(call.radius)[item * call.radius_stride];
      const D* incoming = static_cast<const D*>(call.vector_cotangent);
      for (int i = 0; i < n; i++) h[i].set(l, incoming ? C(incoming[item * n + place<is_complex>(n, i)]) : C(0));
      const D* along = static_cast<const D*>(call.multiplier_cotangent);
      lower[l] = along ? C(double(along[item]) * (inactive[l] != 0 ? 1 : kappa[l] / radius[l])) : C(0);
    }
    const R shift = R::load(lambdas), zero(0);
    const auto inside = R::load(inactive) > zero;
    const Tridiagonal<R> T = scaled(basis);
    Twisted<R> twisted;
    twisted.factorise(T, shift, pivots);
    basis.apply_adjoint(h);
    R mu;
    twisted.bordered(border, h, R::load(lower), inside, h, mu, scratch);
    basis.apply(h);
    if constexpr (sizeof(C) < 8) {
      for (int i = 0; i < n; i++) total[i] = h[i];
      refine(first, lanes, basis, twisted, border, inside, lower, total, mu, h, scratch, w, s, u, lambdas);
      for (int i = 0; i < n; i++) h[i] = total[i];
    }
    for (int l = 0; l < lanes; l++) {
      const std::int64_t item = first + l;
      const bool good = !(call.code[item] & SPHERE_NOT_FINITE);
      for (int i = 0; i < n; i++) w[i] = good ? double(h[i][l]) / kappa[l] : 0;
      const double along = !good ? 0 : double(mu[l]);
      write(item, w, u, s, good, along, inside[l], radius[l]);
    }
    return 0;
  }

  // T with what is small for it.
  Tridiagonal<R> scaled(const Basis& basis) const {
    R low, high;
    gershgorin(n, basis.d, basis.e, low, high);
    const R bound = max(abs(low), abs(high)), norm = select(bound > R(0), bound, R(1));
    return {n, basis.d, basis.e, norm, norm * R(epsilon<C> * epsilon<C>)};
  }

  // One step of refinement from residuals in double precision.
  template <class M>
  void refine(std::int64_t first, int lanes, const Basis& basis, const Twisted<R>& twisted, const R* border, M inside,
              C* lower, R* w, R& mu, R* h, R* scratch, double* wide, double* s, double* u, const C* lambdas) const {
    for (int l = 0; l < W; l++) {
      const std::int64_t item = first + (l < lanes ? l : 0);
      const C* own = static_cast<const C*>(call.factor) + item * factor_size<Basis>(n) + Basis::size(n);
      const double matrix = times_power(1.0, -int(own[n + 1])), sigma = times_power(1.0, -int(own[n + 2]));
      const double r = static_cast<const D*>(call.radius)[item * call.radius_stride];
      const D* point = static_cast<const D*>(call.u) + item * n;
      for (int i = 0; i < n; i++) wide[i] = double(w[i][l]), u[i] = double(point[i]) / r;
      measure(data_of(item), matrix, 0, sigma, wide, double(lambdas[l]), s);
      const D* incoming = static_cast<const D*>(call.vector_cotangent);
      double across = 0;
      for (int i = 0; i < n; i++) {
        s[i] += (incoming ? double(incoming[item * n + i]) : 0) - (inside[l] ? 0 : double(mu[l]) * u[i]);
        across += u[i] * wide[i];
        h[i].set(l, C(s[i]));
      }
      lower[l] = inside[l] ? C(0) : C(double(lower[l]) - across);
    }
    basis.apply_adjoint(h);
    R change;
    twisted.bordered(border, h, R::load(lower), inside, h, change, scratch);
    basis.apply(h);
    for (int i = 0; i < n; i++) w[i] = w[i] + h[i];
    mu = select(inside, mu, mu + change);
  }

  void write(std::int64_t item, const double* w, double* u, double* s, bool good, double along, bool inside,
             double radius) const {
    const D* point = static_cast<const D*>(call.u) + item * n;
    for (int i = 0; i < n; i++) u[i] = good ? double(point[place<is_complex>(n, i)]) : 0;
    if (call.w) {
      D* to = static_cast<D*>(call.w) + item * n;
      for (int i = 0; i < n; i++) to[place<is_complex>(n, i)] = D(w[i]);
    }
    if (call.mu) static_cast<D*>(call.mu)[item] = D(inside ? along : along / radius);
    if (call.radius_gradient) static_cast<D*>(call.radius_gradient)[item] = D(inside ? 0 : along);
    if constexpr (quadratic) {
      if (call.b_gradient) {
        D* to = static_cast<D*>(call.b_gradient) + item * n;
        for (int i = 0; i < n; i++) to[place<is_complex>(n, i)] = D(w[i]);
      }
      if (call.A_gradient) write_outer(item, w, u);
      (void)s;
    } else if (call.A_gradient || call.b_gradient || call.weights_gradient) {
      write_rows(data_of(item), item, w, u, good);
    }
  }

  // The lower triangle, and its mirror image: Hermitian to the last bit.
  void write_outer(std::int64_t item, const double* w, const double* u) const {
    if constexpr (is_complex) {
      const int order = n / 2;
      const Turned turned_w(order, w), turned_u(order, u);
      D* to = static_cast<D*>(call.A_gradient) + item * order * n;
      for (int i = 0; i < order; i++) {
        D* row = to + i * n;
        combine(order, -w[i] / 2, -w[order + i] / 2, turned_u, -u[i] / 2, -u[order + i] / 2, turned_w, row);
        row[2 * i + 1] = 0;
        for (int j = 0; j < i; j++) to[j * n + 2 * i] = row[2 * j], to[j * n + 2 * i + 1] = -row[2 * j + 1];
      }
    } else {
      D* to = static_cast<D*>(call.A_gradient) + item * n * n;
      for (std::ptrdiff_t i = 0; i < n; i++) {
        combine(n, -u[i] / 2, w, -w[i] / 2, u, to + i * n);
        for (std::ptrdiff_t j = 0; j < i; j++) to[j * n + i] = to[i * n + j];
      }
    }
  }

  void write_rows(const LeastSquaresItem<D>& data, std::int64_t item, const double* w, const double* u, bool good) const {
    D* to_A = call.A_gradient ? static_cast<D*>(call.A_gradient) + item * call.m * n : nullptr;
    D* to_b = call.b_gradient ? static_cast<D*>(call.b_gradient) + item * call.m : nullptr;
    D* to_weights = call.weights_gradient ? static_cast<D*>(call.weights_gradient) + item * call.m : nullptr;
    for (std::ptrdiff_t k = 0; k < data.m; k++) {
      const D* row = data.A + k * n;
      const double weight = data.weights ? double(data.weights[k]) : 1;
      const double v = good ? dot(n, row, w) : 0, rho = good ? double(data.b[k]) - dot(n, row, u) : 0;
      if (to_A) combine(n, weight * rho, w, -weight * v, u, to_A + k * n);
      if (to_b) to_b[k] = D(weight * v);
      if (to_weights) to_weights[k] = D(v * rho);
    }
  }

  // The same with complex numbers, W̄ = Re(v̄ρ).
  void write_rows(const ComplexLeastSquaresItem<D>& data, std::int64_t item, const double* w, const double* u,
                  bool good) const {
    const int order = data.n;
    const Turned turned_w(order, w), turned_u(order, u);
    D* to_A = call.A_gradient ? static_cast<D*>(call.A_gradient) + item * call.m * n : nullptr;
    D* to_b = call.b_gradient ? static_cast<D*>(call.b_gradient) + item * call.m * 2 : nullptr;
    D* to_weights = call.weights_gradient ? static_cast<D*>(call.weights_gradient) + item * call.m : nullptr;
    for (std::ptrdiff_t k = 0; k < data.m; k++) {
      const double weight = data.weights ? double(data.weights[k]) : 1;
      double v_re = 0, v_im = 0, rho_re = 0, rho_im = 0;
      if (good) {
        product(order, data.A + k * n, turned_w, v_re, v_im);
        product(order, data.A + k * n, turned_u, rho_re, rho_im);
        rho_re = double(data.b[2 * k]) - rho_re;
        rho_im = double(data.b[2 * k + 1]) - rho_im;
      }
      if (to_A)
        combine(order, weight * rho_re, weight * rho_im, turned_w, -weight * v_re, -weight * v_im, turned_u, to_A + k * n);
      if (to_b) to_b[2 * k] = D(weight * v_re), to_b[2 * k + 1] = D(weight * v_im);
      if (to_weights) to_weights[k] = D(v_re * rho_re + v_im * rho_im);
    }
  }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
