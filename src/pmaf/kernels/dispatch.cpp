// The plain C interface, and the choice of the instruction set at run time.
#include "calls.h"

namespace pmaf {

#define PMAF_DECLARE(isa)                  \
  namespace isa {                          \
  int eigenpairs(const EigenpairsCall&);   \
  int eigen_gradient(const EigenGradientCall&); \
  }
PMAF_DECLARE(baseline)
#if defined(__x86_64__)
PMAF_DECLARE(avx2)
PMAF_DECLARE(avx512)
#endif

// Kernels of one instruction set.
struct Table {
  int (*eigenpairs)(const EigenpairsCall&);
  int (*eigen_gradient)(const EigenGradientCall&);
};

constexpr Table tables[] = {
    {baseline::eigenpairs, baseline::eigen_gradient},
#if defined(__x86_64__)
    {avx2::eigenpairs, avx2::eigen_gradient},
    {avx512::eigenpairs, avx512::eigen_gradient},
#endif
};

}  // namespace pmaf

#define PMAF_EXPORT extern "C" __attribute__((visibility("default")))

// Raised whenever the interface changes, so that a library left over from another version is not used.
PMAF_EXPORT int pmaf_version() { return 6; }

// The best instruction set of this processor: 0 baseline, 1 AVX2 with FMA, 2 AVX-512 (F, VL, DQ, BW).
PMAF_EXPORT int pmaf_best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
    return 2;
  return avx2 ? 1 : 0;
#else
  return 0;
#endif
}

PMAF_EXPORT int pmaf_eigenpairs(int isa, const pmaf::EigenpairsCall* call) {
  return pmaf::tables[isa].eigenpairs(*call);
}

PMAF_EXPORT int pmaf_eigen_gradient(int isa, const pmaf::EigenGradientCall* call) {
  return pmaf::tables[isa].eigen_gradient(*call);
}
