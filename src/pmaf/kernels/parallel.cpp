#include "parallel.h"

#include <atomic>
#include <cstdlib>
#include <system_error>
#include <thread>

namespace pmaf {

int useful_threads(std::int64_t batch, int threads, double work) {
  const double enough = 2e7;  // operations that are worth a thread, about a millisecond
  const double useful = work * static_cast<double>(batch) / enough;
  return useful < threads ? (useful < 1 ? 1 : static_cast<int>(useful)) : threads;
}

int run_blocks(std::int64_t blocks, int threads, int (*run)(void*, std::int64_t, int), void* context) {
  if (threads > most_threads) threads = most_threads;
  if (threads > blocks) threads = static_cast<int>(blocks);
  if (threads <= 1) {
    int seen = 0;
    for (std::int64_t b = 0; b < blocks; b++) seen |= run(context, b, 0);
    return seen;
  }
  std::atomic<std::int64_t> following{0};
  std::atomic<int> seen{0};
  auto work = [&](int thread) {
    int mine = 0;
    for (std::int64_t b; (b = following.fetch_add(1, std::memory_order_relaxed)) < blocks;)
      mine |= run(context, b, thread);
    seen.fetch_or(mine, std::memory_order_relaxed);
  };
  std::thread others[most_threads];
  int started = 1;
  try {
    for (; started < threads; started++) others[started] = std::thread(work, started);
  } catch (const std::system_error&) {
    // No more threads to be had: those that run do the work.
  }
  work(0);
  for (int t = 1; t < started; t++) others[t].join();
  return seen.load();
}

namespace {

struct Memory {
  char* bytes = nullptr;
  std::size_t size = 0;
  ~Memory() { std::free(bytes); }
};

}  // namespace

char* workspace(std::size_t bytes) {
  thread_local Memory memory;
  bytes = (bytes + 63) / 64 * 64;
  if (memory.size < bytes) {
    std::free(memory.bytes);
    memory.bytes = static_cast<char*>(std::aligned_alloc(64, bytes));
    memory.size = memory.bytes ? bytes : 0;
  }
  return memory.bytes;
}

}  // namespace pmaf
