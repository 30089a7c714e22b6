// The plain C interface of the kernels on the sphere and on factors.
#include "gram_calls.h"
#include "sphere_calls.h"

namespace pmaf {

#define PMAF_DECLARE(isa)                         \
  namespace isa {                                 \
  int sphere(const SphereCall&);                  \
  int sphere_gradient(const SphereGradientCall&); \
  int gram(const GramCall&);                      \
  int gram_gradient(const GramGradientCall&);     \
  int gram_product(const GramProductCall&);       \
  int gram_outer(const GramOuterCall&);           \
  int gram_image(const GramImageCall&);           \
  }
PMAF_DECLARE(baseline)
#if defined(__x86_64__)
PMAF_DECLARE(avx2)
PMAF_DECLARE(avx512)
#endif

namespace {

// Kernels of one instruction set.
struct Table {
  int (*sphere)(const SphereCall&);
  int (*sphere_gradient)(const SphereGradientCall&);
  int (*gram)(const GramCall&);
  int (*gram_gradient)(const GramGradientCall&);
  int (*gram_product)(const GramProductCall&);
  int (*gram_outer)(const GramOuterCall&);
  int (*gram_image)(const GramImageCall&);
};

constexpr Table tables[] = {
    {baseline::sphere, baseline::sphere_gradient, baseline::gram, baseline::gram_gradient, baseline::gram_product, baseline::gram_outer, baseline::gram_image},
#if defined(__x86_64__)
    {avx2::sphere, avx2::sphere_gradient, avx2::gram, avx2::gram_gradient, avx2::gram_product, avx2::gram_outer, avx2::gram_image},
    {avx512::sphere, avx512::sphere_gradient, avx512::gram, avx512::gram_gradient, avx512::gram_product, avx512::gram_outer, avx512::gram_image},
#endif
};

}  // namespace
}  // namespace pmaf

#define PMAF_EXPORT extern "C" __attribute__((visibility("default")))

PMAF_EXPORT int pmaf_sphere(int isa, const pmaf::SphereCall* call) { return pmaf::tables[isa].sphere(*call); }

PMAF_EXPORT int pmaf_sphere_gradient(int isa, const pmaf::SphereGradientCall* call) {
  return pmaf::tables[isa].sphere_gradient(*call);
}

PMAF_EXPORT int pmaf_gram(int isa, const pmaf::GramCall* call) { return pmaf::tables[isa].gram(*call); }

PMAF_EXPORT int pmaf_gram_gradient(int isa, const pmaf::GramGradientCall* call) {
  return pmaf::tables[isa].gram_gradient(*call);
}

PMAF_EXPORT int pmaf_gram_product(int isa, const pmaf::GramProductCall* call) {
  return pmaf::tables[isa].gram_product(*call);
}

PMAF_EXPORT int pmaf_gram_outer(int isa, const pmaf::GramOuterCall* call) { return pmaf::tables[isa].gram_outer(*call); }

PMAF_EXPORT int pmaf_gram_image(int isa, const pmaf::GramImageCall* call) { return pmaf::tables[isa].gram_image(*call); }
