// The kernels on the sphere for one instruction set: which form an item takes depends on its order and type alone.
#include "sphere_gradient.h"

#include "blocks.h"

namespace pmaf {
namespace PMAF_ISA {

// Up to this order matrices lie side by side in lanes; up to the next, float data are computed in double precision.
constexpr std::int64_t most_in_lanes = 40, most_widened = 96;

template <class Kernel, class Call>
int run(const Call& call, const Kernel& kernel, int width) {
  return over_blocks(call.batch, width, call.threads, kernel.bytes(call.n), SPHERE_NO_MEMORY, kernel);
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

template <template <class, class, class, bool> class Kernel, class Call>
int by_type(const Call& call) {
  if (call.m < 0)
    return call.type == FLOAT32 ? choose<Kernel, true, float>(call) : choose<Kernel, true, double>(call);
  return call.type == FLOAT32 ? choose<Kernel, false, float>(call) : choose<Kernel, false, double>(call);
}

int sphere(const SphereCall& call) { return call.batch > 0 ? by_type<SphereSolver>(call) : 0; }
int sphere_gradient(const SphereGradientCall& call) { return call.batch > 0 ? by_type<SphereGradient>(call) : 0; }

}  // namespace PMAF_ISA
}  // namespace pmaf
