// The reduction of generalised eigenproblems for one instruction set.
#include "generalised.h"

#include "batch.h"

namespace pmaf {
namespace PMAF_ISA {

namespace {

struct Kernel {
  const ReductionCall& call;
  template <class S>
  int run(std::int64_t first, int lanes) {
    char* memory = workspace(reduction_memory<S>(call));
    return memory ? reduction_block<S>(call, first, lanes, memory) : REDUCTION_NO_MEMORY;
  }
};

}  // namespace

int reduction(const ReductionCall& call) {
  Kernel kernel{call};
  const double n = static_cast<double>(call.n), work = 2 * n * n * n * (call.type >= 2 ? 4 : 1);
  switch (call.type) {
    case 0:
      return run_batch<float, false>(kernel, call.batch, call.threads, work);
    case 1:
      return run_batch<double, false>(kernel, call.batch, call.threads, work);
    case 2:
      return run_batch<float, true>(kernel, call.batch, call.threads, work);
    default:
      return run_batch<double, true>(kernel, call.batch, call.threads, work);
  }
}

}  // namespace PMAF_ISA
}  // namespace pmaf
