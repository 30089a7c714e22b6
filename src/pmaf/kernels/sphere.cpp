// The kernels on the sphere for one instruction set: which form an item takes depends on its order and type alone.
#include "blocks.h"
#include "sphere_singular_gradient.h"

namespace pmaf {
namespace PMAF_ISA {

// Up to this order singular values are found here.
constexpr std::int64_t most_singular = 128;

template <class Kernel, class Call>
int run(const Call& call, const Kernel& kernel, int width) {
  const double n = static_cast<double>(call.n), m = call.m < 0 ? 0.0 : static_cast<double>(call.m);
  const double work = n * n * (m + 10 * n) * (call.type == COMPLEX64 || call.type == COMPLEX128 ? 4 : 1);
  return over_blocks(call.batch, width, call.threads, work, kernel.bytes(kernel.n), SPHERE_NO_MEMORY, kernel);
}

template <template <class, class, class, bool> class Kernel, bool quadratic, class D, class Call>
int choose(const Call& call) {
  constexpr int W = full_width<double>;
  const int n = static_cast<int>(call.n);
  if (n <= most_in_lanes) {
    if (call.batch <= 2) return run(call, Kernel<D, double, LaneBasis<double, 2>, quadratic>{call, n}, 2);
    return run(call, Kernel<D, double, LaneBasis<double, W>, quadratic>{call, n}, W);
  }
  if (sizeof(D) == 8 || n <= most_widened) return run(call, Kernel<D, double, RowBasis<double>, quadratic>{call, n}, 1);
  return run(call, Kernel<D, D, RowBasis<D>, quadratic>{call, n}, 1);
}

template <template <class, class, class, bool> class Kernel, bool quadratic, class D, class Call>
int choose_complex(const Call& call) {
  constexpr int W = full_width<double>;
  const int n = 2 * static_cast<int>(call.n);
  if (call.n > most_complex) return SPHERE_NO_MEMORY;
  if (call.batch <= 2) return run(call, Kernel<D, double, ComplexLaneBasis<double, 2>, quadratic>{call, n}, 2);
  return run(call, Kernel<D, double, ComplexLaneBasis<double, W>, quadratic>{call, n}, W);
}

template <template <class, class, class, bool> class Kernel, class Call>
int by_type(const Call& call) {
  if (call.type == COMPLEX64)
    return call.m < 0 ? choose_complex<Kernel, true, float>(call) : choose_complex<Kernel, false, float>(call);
  if (call.type == COMPLEX128)
    return call.m < 0 ? choose_complex<Kernel, true, double>(call) : choose_complex<Kernel, false, double>(call);
  if (call.m < 0)
    return call.type == FLOAT32 ? choose<Kernel, true, float>(call) : choose<Kernel, true, double>(call);
  return call.type == FLOAT32 ? choose<Kernel, false, float>(call) : choose<Kernel, false, double>(call);
}

constexpr int doubtful = SPHERE_INACCURATE | SPHERE_REPEATED | SPHERE_VAGUE;

// Takes items that the Gram matrix cannot vouch for once more.
template <class D>
int again(const SphereCall& call) {
  constexpr int W = full_width<double>;
  const auto wanted = [&](std::int64_t i) { return (call.code[i] & doubtful) && !(call.code[i] & SPHERE_NOT_FINITE); };
  if (call.batch <= 2) return over_some<SingularSolver<D, 2>>(call, 2, SPHERE_NO_MEMORY, wanted);
  return over_some<SingularSolver<D, W>>(call, W, SPHERE_NO_MEMORY, wanted);
}

// Complex items have no way from singular values; where they are not unique, a phase is left to choose.
int vouched(const SphereCall& call, int seen) {
  constexpr int open = doubtful | SPHERE_NOT_UNIQUE;
  if (!(seen & open)) return seen;
  seen = 0;
  for (std::int64_t i = 0; i < call.batch; i++) {
    if (call.code[i] & open) call.code[i] = (call.code[i] & ~SPHERE_VAGUE) | SPHERE_INACCURATE;
    seen |= call.code[i];
  }
  return seen;
}

int sphere(const SphereCall& call) {
  if (call.batch <= 0) return 0;
  int seen = by_type<SphereSolver>(call);
  if (call.type == COMPLEX64 || call.type == COMPLEX128) return vouched(call, seen);
  if (!(seen & doubtful)) return seen;
  if (call.m >= 0 && call.n <= most_singular)
    seen = (call.type == FLOAT32 ? again<float>(call) : again<double>(call)) & SPHERE_NO_MEMORY;
  for (std::int64_t i = 0; i < call.batch; i++) seen |= call.code[i] &= ~SPHERE_VAGUE;
  return seen & ~SPHERE_VAGUE;
}

template <class D>
int gradient_again(const SphereGradientCall& call) {
  const auto wanted = [&](std::int64_t i) { return (call.code[i] & SPHERE_SINGULAR) != 0; };
  if (call.batch <= 2) return over_some<SingularGradient<D, 2>>(call, 2, SPHERE_NO_MEMORY, wanted);
  return over_some<SingularGradient<D, full_width<double>>>(call, full_width<double>, SPHERE_NO_MEMORY, wanted);
}

int sphere_gradient(const SphereGradientCall& call) {
  if (call.batch <= 0) return 0;
  const int seen = by_type<SphereGradient>(call);
  if (call.type == COMPLEX64 || call.type == COMPLEX128) return seen;
  if (call.m < 0 || (seen & SPHERE_NO_MEMORY)) return seen;
  return call.type == FLOAT32 ? gradient_again<float>(call) : gradient_again<double>(call);
}

}  // namespace PMAF_ISA
}  // namespace pmaf
