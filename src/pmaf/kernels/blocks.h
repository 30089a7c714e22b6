// Runs a kernel over a batch in blocks of items, on several threads where that is asked for and worth it, each with memory
// of its own.
#pragma once

#include <new>

#include "arena.h"
#include "parallel.h"

namespace pmaf {
namespace PMAF_ISA {

// The or of what kernel(first, count, arena) returns for blocks of `width` items; `failed` where there is no memory. An item
// takes about `work` operations.
template <class Kernel>
int over_blocks(std::int64_t batch, int width, int threads, double work, std::size_t bytes, int failed,
                const Kernel& kernel) {
  bytes = (bytes / Arena::alignment + 1) * Arena::alignment;
  const std::int64_t blocks = (batch + width - 1) / width;
  threads = useful_threads(batch, threads > most_threads ? most_threads : threads, work);
  threads = threads < 1 ? 1 : threads;
  threads = threads > blocks ? static_cast<int>(blocks) : threads;
  const std::unique_ptr<char[]> memory(new (std::nothrow) char[bytes * threads + Arena::alignment]);
  if (!memory) return failed;
  auto block = [&](std::int64_t b, int thread) {
    const std::int64_t first = b * width, left = batch - first;
    return kernel(first, static_cast<int>(left < width ? left : width), arena_of(memory.get(), bytes, thread));
  };
  return parallel(blocks, threads, block);
}

// Runs a kernel on the items of a batch for which `wanted` holds, `width` at a time.
template <class Kernel, class Call, class Wanted>
int over_some(const Call& call, int width, int failed, const Wanted& wanted) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < call.batch; i++) count += wanted(i);
  if (count == 0) return 0;
  const std::unique_ptr<std::int64_t[]> items(new (std::nothrow) std::int64_t[count]);
  if (!items) return failed;
  count = 0;
  for (std::int64_t i = 0; i < call.batch; i++)
    if (wanted(i)) items[count++] = i;
  const double n = static_cast<double>(call.n), work = n * n * (static_cast<double>(call.m) + 100 * n);
  return over_blocks(count, width, call.threads, work, Kernel::bytes(call.n), failed, Kernel{call, items.get()});
}

}  // namespace PMAF_ISA
}  // namespace pmaf
