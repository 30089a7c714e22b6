// One number with the interface of lanes, on plain scalars: what one large matrix is solved with.
#pragma once

#include <limits>

#include "lanes.h"

namespace pmaf {
namespace PMAF_ISA {

template <class T>
constexpr T epsilon = std::numeric_limits<T>::epsilon();

struct SingleMask {
  bool v;
  PMAF_INLINE friend SingleMask operator&(SingleMask a, SingleMask b) { return {a.v && b.v}; }
  PMAF_INLINE friend SingleMask operator|(SingleMask a, SingleMask b) { return {a.v || b.v}; }
  PMAF_INLINE friend SingleMask operator~(SingleMask a) { return {!a.v}; }
  PMAF_INLINE bool operator[](int) const { return v; }
};

PMAF_INLINE bool any(SingleMask m) { return m.v; }
PMAF_INLINE bool all(SingleMask m) { return m.v; }

template <class T>
struct Single {
  using scalar = T;
  using real = Single;
  using mask = SingleMask;
  static constexpr int width = 1;
  static constexpr bool is_complex = false;
  T v;

  Single() = default;
  PMAF_INLINE Single(T x) : v(x) {}
  PMAF_INLINE T operator[](int) const { return v; }
  PMAF_INLINE void set(int, T x) { v = x; }
  PMAF_INLINE static Single load(const T* p) { return *p; }
  PMAF_INLINE void store(T* p) const { *p = v; }

  PMAF_INLINE friend Single operator+(Single a, Single b) { return a.v + b.v; }
  PMAF_INLINE friend Single operator-(Single a, Single b) { return a.v - b.v; }
  PMAF_INLINE friend Single operator*(Single a, Single b) { return a.v * b.v; }
  PMAF_INLINE friend Single operator/(Single a, Single b) { return a.v / b.v; }
  PMAF_INLINE friend Single operator-(Single a) { return -a.v; }
  PMAF_INLINE Single& operator+=(Single b) { return v += b.v, *this; }
  PMAF_INLINE Single& operator-=(Single b) { return v -= b.v, *this; }
  PMAF_INLINE Single& operator*=(Single b) { return v *= b.v, *this; }
  PMAF_INLINE friend mask operator<(Single a, Single b) { return {a.v < b.v}; }
  PMAF_INLINE friend mask operator>(Single a, Single b) { return {a.v > b.v}; }
  PMAF_INLINE friend mask operator<=(Single a, Single b) { return {a.v <= b.v}; }
  PMAF_INLINE friend mask operator>=(Single a, Single b) { return {a.v >= b.v}; }
  PMAF_INLINE friend mask operator==(Single a, Single b) { return {a.v == b.v}; }
};

template <class T>
PMAF_INLINE Single<T> select(SingleMask m, Single<T> a, Single<T> b) {
  return m.v ? a : b;
}
template <class T>
PMAF_INLINE Single<T> abs(Single<T> a) {
  return std::fabs(a.v);
}
template <class T>
PMAF_INLINE Single<T> max(Single<T> a, Single<T> b) {
  return a.v > b.v ? a : b;
}
template <class T>
PMAF_INLINE Single<T> min(Single<T> a, Single<T> b) {
  return a.v < b.v ? a : b;
}
template <class T>
PMAF_INLINE Single<T> copysign(Single<T> a, Single<T> b) {
  return std::copysign(a.v, b.v);
}
template <class T>
PMAF_INLINE Single<T> sqrt(Single<T> a) {
  return std::sqrt(a.v);
}
// a·b + c, rounded once where the processor can.
template <class T>
PMAF_INLINE Single<T> fma(Single<T> a, Single<T> b, Single<T> c) {
#if defined(__FMA__) || defined(__aarch64__)
  if constexpr (sizeof(T) == 4) return __builtin_fmaf(a.v, b.v, c.v);
  else return __builtin_fma(a.v, b.v, c.v);
#else
  return a.v * b.v + c.v;
#endif
}
template <class T>
PMAF_INLINE Single<T> fnma(Single<T> a, Single<T> b, Single<T> c) {
  return fma(-a, b, c);
}

}  // namespace PMAF_ISA
}  // namespace pmaf
