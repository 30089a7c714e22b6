// Cuts a batch into blocks of lanes: full registers first, then the narrowest that holds the rest.
#pragma once

#include "lanes.h"
#include "parallel.h"

namespace pmaf {
namespace PMAF_ISA {

// Lanes<T, W>, or complex ones.
template <class T, bool is_complex, int W>
struct LanesOf {
  using type = Lanes<T, W>;
};
template <class T, int W>
struct LanesOf<T, true, W> {
  using type = Complex<Lanes<T, W>>;
};

// Four floats or two doubles: narrower lanes are no faster.
template <class T>
constexpr int least_width = 16 / static_cast<int>(sizeof(T));

// Runs kernel.template run<S>(first, lanes) with the narrowest S of at least `lanes` lanes.
template <class T, bool is_complex, int W, class Kernel>
int run_lanes(Kernel& kernel, std::int64_t first, int lanes) {
  if constexpr (W > least_width<T>)
    if (lanes <= W / 2) return run_lanes<T, is_complex, W / 2>(kernel, first, lanes);
  return kernel.template run<typename LanesOf<T, is_complex, W>::type>(first, lanes);
}

// The whole batch.
template <class T, bool is_complex, class Kernel>
int run_batch(Kernel& kernel, std::int64_t batch, int threads, double work) {
  constexpr int W = full_width<T>;
  const std::int64_t blocks = (batch + W - 1) / W;
  auto block = [&](std::int64_t b, int) {
    const std::int64_t first = b * W;
    const int lanes = static_cast<int>(batch - first < W ? batch - first : W);
    return run_lanes<T, is_complex, W>(kernel, first, lanes);
  };
  return parallel(blocks, useful_threads(batch, threads, work), block);
}

}  // namespace PMAF_ISA
}  // namespace pmaf
