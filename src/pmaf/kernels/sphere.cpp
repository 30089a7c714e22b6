// The kernels on the sphere for one instruction set: which form an item takes depends on its order and type alone.
#include "sphere_gradient.h"

#include "parallel.h"

namespace pmaf {
namespace PMAF_ISA {

// Up to this order matrices lie side by side in lanes; up to the next, float data are computed in double precision.
constexpr std::int64_t most_in_lanes = 40, most_widened = 96;

// Runs a kernel over all blocks of a batch.
template <class Kernel, class Call>
int run(const Call& call, const Kernel& kernel, int width) {
  const std::size_t bytes = (kernel.bytes(call.n) / Arena::alignment + 1) * Arena::alignment;
  const std::int64_t blocks = (call.batch + width - 1) / width;
  int threads = call.threads < 1 ? 1 : call.threads;
  threads = threads > most_threads ? most_threads : threads;
  threads = threads > blocks ? static_cast<int>(blocks) : threads;
  const std::unique_ptr<char[]> memory(new char[bytes * threads + Arena::alignment]);
  auto block = [&](std::int64_t b, int thread) {
    const std::int64_t first = b * width, left = call.batch - first;
    return kernel(first, static_cast<int>(left < width ? left : width), arena_of(memory.get(), bytes, thread));
  };
  return parallel(blocks, threads, block);
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
