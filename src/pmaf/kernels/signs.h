// The fixed numbers that decide the sign of a vector where its reference cannot: a bit-mixing hash of i, cut to 24 bits,
// the same as pmaf.linalg.signs.generic.
#pragma once

#include <cstdint>

namespace pmaf {
namespace PMAF_ISA {

inline double deciding_number(std::int64_t i) {
  std::uint64_t x = (static_cast<std::uint64_t>(i + 1) * 0x9E3779B1u) & 0xFFFFFFFFu;
  x = ((x ^ (x >> 15)) * 0x2C1B3C6Du) & 0xFFFFFFFFu;
  x = ((x ^ (x >> 12)) * 0x297A2D39u) & 0xFFFFFFFFu;
  return static_cast<double>((x ^ (x >> 15)) >> 8) * 0x1p-24 - 0.40625;
}

}  // namespace PMAF_ISA
}  // namespace pmaf
