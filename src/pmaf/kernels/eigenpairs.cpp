// The eigenpair kernels of one instruction set.
#include "calls.h"
#include "lanes.h"
#include "parallel.h"

namespace pmaf {
namespace PMAF_ISA {

int eigenpairs(const EigenpairsCall&) { return INACCURATE; }
int eigen_gradient(const EigenGradientCall&) { return NEEDS_BASIS; }

}  // namespace PMAF_ISA
}  // namespace pmaf
