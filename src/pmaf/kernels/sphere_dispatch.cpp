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
  int triplet_gradient(const TripletGradientCall&); \
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
  int (*triplet_gradient)(const TripletGradientCall&);
};

#define PMAF_KERNELS(isa)                                                                              \
  {isa::sphere,     isa::sphere_gradient, isa::gram,      isa::gram_gradient, isa::gram_product, isa::gram_outer, \
   isa::gram_image, isa::triplet_gradient}
constexpr Table tables[] = {
    PMAF_KERNELS(baseline),
#if defined(__x86_64__)
    PMAF_KERNELS(avx2),
    PMAF_KERNELS(avx512),
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

PMAF_EXPORT int pmaf_triplet_gradient(int isa, const pmaf::TripletGradientCall* call) {
  return pmaf::tables[isa].triplet_gradient(*call);
}
