// The gradient kernel of one instruction set.
#include "eigen_gradient.h"

#include "batch.h"
#include "small.h"

namespace pmaf {
namespace PMAF_ISA {

namespace {

struct Kernel {
  const EigenGradientCall& call;
  template <class S>
  int run(std::int64_t first, int lanes) {
    char* memory = workspace(eigen_gradient_memory<S>(call));
    return memory ? eigen_gradient_block<S>(call, first, lanes, memory) : NO_MEMORY;
  }
};

}  // namespace

int eigen_gradient(const EigenGradientCall& call) {
  if (is_small(call)) return small_gradient(call);
  Kernel kernel{call};
  const double n = static_cast<double>(call.n), k = static_cast<double>(call.k);
  const double work = n * n * (20 * k + 20) * (call.type >= COMPLEX64 ? 4 : 1);
  switch (call.type) {
    case FLOAT32:
      return run_batch<float, false>(kernel, call.batch, call.threads, work);
    case FLOAT64:
      return run_batch<double, false>(kernel, call.batch, call.threads, work);
    case COMPLEX64:
      return run_batch<float, true>(kernel, call.batch, call.threads, work);
    default:
      return run_batch<double, true>(kernel, call.batch, call.threads, work);
  }
}

}  // namespace PMAF_ISA
}  // namespace pmaf
