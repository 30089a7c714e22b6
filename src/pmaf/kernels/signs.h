// The fixed numbers that decide the sign of a vector where its reference cannot: as for eigenpairs.
#pragma once

#include <cmath>
#include <cstdint>

namespace pmaf {
namespace PMAF_ISA {

inline double deciding_number(std::int64_t i) {
  const double x = static_cast<double>(i + 1) * 0.6180339887498949;
  return 2 * (x - std::floor(x)) - 0.5;
}

}  // namespace PMAF_ISA
}  // namespace pmaf
