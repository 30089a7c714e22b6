// One item of a call: its units, what was found for it, and what it is told.
//
// Units. With A = 2^α A', b = 2^β b', r = 2^ρ r' (powers of two that bring the largest entries to 1 … 2) and u = r u' the
// problem on the unit sphere has Q' = A'ᵀA' and g' = A'ᵀb' 2^k/r', k = β − α − ρ. Where k > 0 both are divided by 2^k:
//
//     Q'' = σQ',  g'' = A'ᵀτb',   σ = 2^−max(k, 0),  τ = 2^min(k, 0)/r',   λ = λ''·4^α/σ  (2^α/σ for a quadratic).
#pragma once

#include "calls.h"
#include "complex_equations.h"
#include "sphere_calls.h"

namespace pmaf {
namespace PMAF_ISA {

// The units of one item, and what is known of it.
struct ItemUnits {
  double matrix = 1, right = 1, sigma = 1, radius = 1;
  int alpha = 0, up = 0, back = 0;  // λ = λ''·2^back
  bool fine = true;
};

template <class D, class Item>
ItemUnits units_of(const Item& item, double radius, bool quadratic) {
  ItemUnits units;
  int alpha = 0, beta = 0;
  item_exponents(item, alpha, beta, units.fine);
  units.fine = units.fine && radius > 0 && radius <= std::numeric_limits<double>::max();
  if (!units.fine) return units;
  alpha = alpha < -1000 ? -1000 : alpha;
  beta = beta < -1000 ? -1000 : beta;
  const int rho = unit_exponent(radius), k = beta - alpha - rho, up = k > 0 ? k : 0;
  units.matrix = times_power(1.0, -alpha);
  units.right = times_power(1 / times_power(radius, -rho), -beta + k - up);
  units.sigma = times_power(1.0, -up);
  units.radius = radius;
  units.alpha = alpha;
  units.up = up;
  units.back = (quadratic ? alpha : 2 * alpha) + up;
  return units;
}

// How many real numbers the unknowns of an item are.
template <class Call>
std::int64_t numbers(const Call& call) {
  return call.type == COMPLEX64 || call.type == COMPLEX128 ? 2 * call.n : call.n;
}

// An item in the form that the solver takes it in.
template <class D, bool quadratic, bool is_complex, class Call>
auto item_of(const Call& call, std::int64_t i) {
  const int n = static_cast<int>(call.n);
  const D *A = static_cast<const D*>(call.A) + i * call.A_stride, *b = static_cast<const D*>(call.b) + i * call.b_stride;
  const D* all = static_cast<const D*>(call.weights);
  const D* weights = all ? all + i * call.weights_stride : nullptr;
  if constexpr (quadratic && is_complex) return ComplexQuadraticItem<D>{n, A, b};
  else if constexpr (quadratic) return QuadraticItem<D>{n, A, b};
  else if constexpr (is_complex) return ComplexLeastSquaresItem<D>{call.m, n, A, b, weights};
  else return LeastSquaresItem<D>{call.m, n, A, b, weights};
}

// Where number i of n lies in a vector of the caller's: complex ones have real and imaginary parts in turn.
template <bool is_complex>
constexpr int place(int n, int i) {
  return !is_complex ? i : i < n / 2 ? 2 * i : 2 * (i - n / 2) + 1;
}

// What was found for one item, in its units.
struct Report {
  double lambda, gap, smallest, norm;
  Measured measured;
  int steps;
  bool inside, unsure, repeated, computed_in_own_type, singular;
};

// Eigenvalues up to here count as zero, in the item's units.
inline double tolerance_of(const SphereCall& call, bool quadratic, const ItemUnits& units, const Report& report) {
  const double rtol = call.rtol, absolute = call.atol > 0 ? times_power(call.atol, -units.back) : 0;
  double tolerance = rtol * report.norm;
  if (!quadratic) {
    // Singular values are known to rtol·‖A‖, and v₁ᵀAᵀ(b − Au), which decides the gap, to that times the misfit.
    const double root = std::sqrt(report.norm), low = std::sqrt(report.smallest > 0 ? report.smallest : 0);
    tolerance = rtol * root * (low > rtol * root ? low : rtol * root);
    const double rest = report.measured.misfit < report.measured.right ? report.measured.misfit : report.measured.right;
    const double noise = units.sigma > 0 ? rtol * std::sqrt(report.norm / units.sigma) * rest : 0;
    if (!report.inside && noise > tolerance) tolerance = noise;
  }
  tolerance += absolute;
  return tolerance;
}

// What an item is told.
template <class D>
int judge(const SphereCall& call, bool quadratic, const ItemUnits& units, const Report& report, double residual) {
  const double tolerance = tolerance_of(call, quadratic, units, report);
  int code = SPHERE_FINE;
  if (report.gap <= tolerance) code |= SPHERE_NOT_UNIQUE | (report.repeated ? SPHERE_REPEATED : 0);
  if (report.inside) code |= SPHERE_INSIDE;
  const double eps = epsilon<D>;
  // Below what a certificate refuses, 32 √(n + 8) ε.
  if (!(residual <= 24 * std::sqrt(double(numbers(call))) * eps) || report.unsure) code |= SPHERE_INACCURATE;
  if (!quadratic && !report.singular) {
    // Rounding of AᵀA leaves u with errors of ε‖Q‖/gap that A and b themselves could not cause, gradients with its square.
    if (report.computed_in_own_type && report.gap <= 1e4 * eps * report.norm) code |= SPHERE_INACCURATE;
    if (report.gap <= 1e-5 * report.norm) code |= SPHERE_VAGUE;
  }
  return code;
}

// Writes what is returned of one item, in its own units, and its code.
template <class D>
int put(const SphereCall& call, bool quadratic, std::int64_t item, const ItemUnits& units, const Report& report) {
  const std::int64_t n = numbers(call);
  D* u = static_cast<D*>(call.u) + item * n;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  int code = SPHERE_FINE;
  double lambda = nan, gap = nan, norm = nan, residual = nan;
  bool finite = units.fine;
  for (int i = 0; finite && i < n; i++) finite = std::isfinite(u[i]);
  if (finite) {
    lambda = times_power(report.lambda, units.back);
    gap = times_power(report.gap, units.back);
    norm = times_power(report.norm, units.back);
    double size = 0;
    for (std::int64_t i = 0; i < n; i++) size += double(u[i]) / units.radius * (double(u[i]) / units.radius);
    double whole = (report.norm + std::fabs(report.lambda)) * std::sqrt(size);
    if (report.inside && !quadratic && units.sigma > 0)  // a short u inside the ball cannot cancel the rounding of Aᵀb
      whole += std::sqrt(report.norm / units.sigma) * report.measured.misfit;
    residual = whole > 0 ? report.measured.residual / whole : report.measured.residual;
    code |= judge<D>(call, quadratic, units, report, residual);
  } else {
    for (int i = 0; i < n; i++) u[i] = D(nan);
    code = units.fine ? SPHERE_INACCURATE : SPHERE_NOT_FINITE;
  }
  static_cast<D*>(call.multiplier)[item] = D(lambda);
  static_cast<D*>(call.gap)[item] = D(gap);
  static_cast<D*>(call.norm)[item] = D(norm);
  static_cast<D*>(call.residual)[item] = D(residual);
  call.steps[item] = report.steps;
  call.code[item] = code;
  return code;
}

}  // namespace PMAF_ISA
}  // namespace pmaf
