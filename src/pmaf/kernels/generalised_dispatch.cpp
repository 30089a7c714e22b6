// The plain C interface of the kernel of generalised eigenproblems.
#include "generalised_calls.h"

namespace pmaf {

#define PMAF_DECLARE(isa) \
  namespace isa {         \
  int reduction(const ReductionCall&); \
  }
PMAF_DECLARE(baseline)
#if defined(__x86_64__)
PMAF_DECLARE(avx2)
PMAF_DECLARE(avx512)
#endif

namespace {

constexpr int (*table[])(const ReductionCall&) = {
    baseline::reduction,
#if defined(__x86_64__)
    avx2::reduction,
    avx512::reduction,
#endif
};

}  // namespace
}  // namespace pmaf

extern "C" __attribute__((visibility("default"))) int pmaf_reduction(int isa, const pmaf::ReductionCall* call) {
  return pmaf::table[isa](*call);
}
