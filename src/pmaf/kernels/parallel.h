// Threads over blocks of a batch, spawned for one call and only when the work is large: nothing survives a call, so
// nothing can be lost in a fork. Which thread runs a block does not change what the block computes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pmaf {

constexpr int most_threads = 64;

// How many threads are worth starting; `work` is about how many operations an item takes.
int useful_threads(std::int64_t batch, int threads, double work);

// Calls run(context, block, thread) for block = 0 … blocks − 1 on up to `threads` threads; the or of what it returns.
int run_blocks(std::int64_t blocks, int threads, int (*run)(void*, std::int64_t, int), void* context);

// The same for anything callable with (block, thread).
template <class Run>
int parallel(std::int64_t blocks, int threads, Run& run) {
  auto call = [](void* context, std::int64_t block, int thread) { return (*static_cast<Run*>(context))(block, thread); };
  return run_blocks(blocks, threads, call, &run);
}

// Memory of the calling thread, aligned to 64 bytes, kept from call to call; null if there is none to be had.
char* workspace(std::size_t bytes);

}  // namespace pmaf
