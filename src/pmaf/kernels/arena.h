// Memory of one thread, taken once for a call and handed out in aligned pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace pmaf {
namespace PMAF_ISA {

struct Arena {
  static constexpr std::size_t alignment = 64;
  char* next;

  // Room for `count` numbers of type T.
  template <class T>
  T* take(std::ptrdiff_t count) {
    T* place = reinterpret_cast<T*>(next);
    next += (static_cast<std::size_t>(count) * sizeof(T) + alignment - 1) / alignment * alignment;
    return place;
  }
};

// The start of one thread's part of a block of memory.
inline Arena arena_of(char* memory, std::size_t bytes, int thread) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  char* aligned = memory + (Arena::alignment - address % Arena::alignment) % Arena::alignment;
  return {aligned + bytes * static_cast<std::size_t>(thread)};
}

}  // namespace PMAF_ISA
}  // namespace pmaf
