// The vectors that decide signs and phases where the caller gives them, as a block of items reads them.
#pragma once

#include "wide.h"

namespace pmaf {
namespace PMAF_ISA {

// (items or 1, n, 1 or columns), item by item in memory.
template <class V>
struct References {
  using T = typename V::T;
  using C = typename V::C;
  const T* first;  // the block's first; null: all ones
  std::ptrdiff_t item, columns;
  int lanes;

  References(const void* all, std::int64_t item_, std::int64_t columns_, std::int64_t at, int lanes_)
      : first(all ? static_cast<const T*>(all) + at * item_ * V::parts : nullptr), item(item_), columns(columns_), lanes(lanes_) {}

  // Entry i of that of vector w.
  C entry(int i, int w, int half) const {
    if (!first) return C(1.0);
    const T* p = first + (i * columns + (columns > 1 ? w : 0)) * V::parts;
    alignas(64) double each[V::stride];
    for (int l = 0; l < V::W; l++)
      for (int q = 0; q < V::parts; q++)
        each[q * V::W + l] = static_cast<double>(p[(l < lanes ? l : 0) * item * V::parts + q]);
    return V::load(each, half);
  }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
