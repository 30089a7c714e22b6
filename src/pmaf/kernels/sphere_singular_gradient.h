// Gradients of items that were solved from singular values (sphere_singular.h), from those values again.
//
// In the basis of right vectors the group's part of u and of the right-hand side is one coordinate along u,
// what is across it is dropped, the others are eliminated,
//
//     [ t   γ₁ ] [ w₁ ]   [ a₁    ]      α = Σ γⱼaⱼ/(δⱼ + t),  β = Σ γⱼ²/(δⱼ + t)   (γ = Vᵀu and a = Vᵀh here,
//     [ γ₁  −β ] [ μ  ] = [ f − α ]                                                    sums outside the group).
#pragma once

#include "sphere_gradient.h"
#include "sphere_singular.h"

namespace pmaf {
namespace PMAF_ISA {

template <class D, int W>
struct SingularGradient {
  const SphereGradientCall& call;
  const std::int64_t* items;

  static std::size_t bytes(std::ptrdiff_t n) {
    return (SingularBasis<D, W>::memory(n) + 6 * n) * sizeof(double) + 24 * Arena::alignment;
  }

  int operator()(std::int64_t first, int lanes, Arena arena) const {
    const int n = int(call.n);
    SingularBasis<D, W> basis(n, arena);
    double* room = arena.take<double>(6 * std::ptrdiff_t(n));
    const SphereGradient<D, double, LaneBasis<double, 2>, false> writer{call, n};
    double matrix[W], right[W];
    for (int l = 0; l < W; l++) matrix[l] = times_power(1, -int(kept(items[first + (l < lanes ? l : 0)], 1))), right[l] = 0;
    const auto item = [&](int l) { return writer.data_of(items[first + l]); };
    basis.factorise(lanes, call.m, item, matrix, right);
    for (int l = 0; l < lanes; l++) solve(items[first + l], l, basis, room, writer);
    return 0;
  }

  // A number of the factor: 0 … 3 of the extras, or t and the tolerance.
  double kept(std::int64_t at, std::ptrdiff_t i, bool start = false) const {
    const std::ptrdiff_t place = at * factor_size(call.n) + (start ? i : basis_size(call.n) + call.n + i);
    if (call.n <= most_widened || sizeof(D) == 8) return static_cast<const double*>(call.factor)[place];
    return static_cast<const D*>(call.factor)[place];
  }

  template <class Writer>
  void solve(std::int64_t at, int lane, const SingularBasis<D, W>& basis, double* room, const Writer& writer) const {
    const int n = basis.n;
    double *d = room, *gamma = d + n, *a = gamma + n, *w = a + n, *u = w + n, *s = u + n;
    const double t = kept(at, 0, true), tolerance = kept(at, 1, true), sigma = times_power(1, -int(kept(at, 2)));
    const int back = 2 * int(kept(at, 1)) + int(kept(at, 2));
    const bool inside = kept(at, 3) != 0;
    const double radius = static_cast<const D*>(call.radius)[at * call.radius_stride];
    const D* point = static_cast<const D*>(call.u) + at * n;
    const D* incoming = static_cast<const D*>(call.vector_cotangent);
    const D* along = static_cast<const D*>(call.multiplier_cotangent);
    double smallest = 0, f = along ? double(along[at]) : 0;
    if (!inside) f = times_power(f, back) / radius;
    for (int j = 0; j < n; j++) {
      d[j] = basis.squares[j][lane] * sigma;
      smallest = j == 0 || d[j] < smallest ? d[j] : smallest;
      gamma[j] = a[j] = 0;
      for (int i = 0; i < n; i++) {
        const double v = basis.V[std::ptrdiff_t(j) * n + i][lane];
        gamma[j] += v * (double(point[i]) / radius);
        if (incoming) a[j] += v * double(incoming[at * n + i]);
      }
    }
    double mu = -f;
    if (inside) {
      for (int j = 0; j < n; j++) w[j] = d[j] > tolerance ? a[j] / d[j] : 0;
    } else {
      double alpha = 0, beta = 0, own = 0, first = 0;
      for (int j = 0; j < n; j++) {
        const double pole = (d[j] - smallest) + t;
        if (pole <= tolerance || d[j] == smallest) {
          own += gamma[j] * gamma[j];
          first += gamma[j] * a[j];
        } else {
          alpha += gamma[j] * a[j] / pole;
          beta += gamma[j] * gamma[j] / pole;
        }
      }
      own = std::sqrt(own);
      first = own > 0 ? first / own : 0;
      const double determinant = t * beta + own * own, inverse = determinant > 0 ? 1 / determinant : 0;
      const double w1 = (beta * first + own * (f - alpha)) * inverse;
      mu = (own * first - t * (f - alpha)) * inverse;
      for (int j = 0; j < n; j++) {
        const double pole = (d[j] - smallest) + t;
        const bool group = pole <= tolerance || d[j] == smallest;
        w[j] = group ? (own > 0 ? w1 * gamma[j] / own : 0) : (a[j] - mu * gamma[j]) / pole;
      }
    }
    for (int i = 0; i < n; i++) s[i] = 0;
    for (int j = 0; j < n; j++)
      for (int i = 0; i < n; i++) s[i] += basis.V[std::ptrdiff_t(j) * n + i][lane] * w[j];
    for (int i = 0; i < n; i++) w[i] = times_power(s[i], -back);
    writer.write(at, w, u, s, true, mu, inside, radius);
  }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
