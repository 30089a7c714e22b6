// Two registers of lanes side by side, computed in lock-step: where each waits for its own chain of divisions, the other
// fills the time. Every lane computes what it computes in one register.
#pragma once

#include "lanes.h"

namespace pmaf {
namespace PMAF_ISA {

template <class M>
struct TwiceMask {
  M a, b;
  PMAF_INLINE friend TwiceMask operator&(TwiceMask x, TwiceMask y) { return {x.a & y.a, x.b & y.b}; }
  PMAF_INLINE friend TwiceMask operator|(TwiceMask x, TwiceMask y) { return {x.a | y.a, x.b | y.b}; }
  PMAF_INLINE friend TwiceMask operator~(TwiceMask x) { return {~x.a, ~x.b}; }
};

template <class M>
PMAF_INLINE bool any(TwiceMask<M> m) {
  return any(m.a | m.b);
}
template <class M>
PMAF_INLINE bool all(TwiceMask<M> m) {
  return all(m.a & m.b);
}

template <class L>
struct Twice {
  using scalar = typename L::scalar;
  using mask = TwiceMask<typename L::mask>;
  static constexpr int width = 2 * L::width;
  L a, b;

  Twice() = default;
  PMAF_INLINE Twice(L x, L y) : a(x), b(y) {}
  PMAF_INLINE Twice(scalar x) : a(x), b(x) {}

  PMAF_INLINE static Twice load(const scalar* p) { return {L::load(p), L::load(p + L::width)}; }
  PMAF_INLINE void store(scalar* p) const { a.store(p), b.store(p + L::width); }

  PMAF_INLINE friend Twice operator+(Twice x, Twice y) { return {x.a + y.a, x.b + y.b}; }
  PMAF_INLINE friend Twice operator-(Twice x, Twice y) { return {x.a - y.a, x.b - y.b}; }
  PMAF_INLINE friend Twice operator*(Twice x, Twice y) { return {x.a * y.a, x.b * y.b}; }
  PMAF_INLINE friend Twice operator/(Twice x, Twice y) { return {x.a / y.a, x.b / y.b}; }
  PMAF_INLINE friend Twice operator-(Twice x) { return {-x.a, -x.b}; }
  PMAF_INLINE Twice& operator+=(Twice y) { return *this = *this + y; }
  PMAF_INLINE Twice& operator-=(Twice y) { return *this = *this - y; }
  PMAF_INLINE Twice& operator*=(Twice y) { return *this = *this * y; }
  PMAF_INLINE friend mask operator<(Twice x, Twice y) { return {x.a < y.a, x.b < y.b}; }
  PMAF_INLINE friend mask operator>(Twice x, Twice y) { return {x.a > y.a, x.b > y.b}; }
  PMAF_INLINE friend mask operator<=(Twice x, Twice y) { return {x.a <= y.a, x.b <= y.b}; }
  PMAF_INLINE friend mask operator>=(Twice x, Twice y) { return {x.a >= y.a, x.b >= y.b}; }
  PMAF_INLINE friend mask operator==(Twice x, Twice y) { return {x.a == y.a, x.b == y.b}; }
};

template <class L>
PMAF_INLINE Twice<L> select(TwiceMask<typename L::mask> m, Twice<L> x, Twice<L> y) {
  return {select(m.a, x.a, y.a), select(m.b, x.b, y.b)};
}
template <class L>
PMAF_INLINE Twice<L> abs(Twice<L> x) {
  return {abs(x.a), abs(x.b)};
}
template <class L>
PMAF_INLINE Twice<L> max(Twice<L> x, Twice<L> y) {
  return {max(x.a, y.a), max(x.b, y.b)};
}
template <class L>
PMAF_INLINE Twice<L> min(Twice<L> x, Twice<L> y) {
  return {min(x.a, y.a), min(x.b, y.b)};
}
template <class L>
PMAF_INLINE Twice<L> copysign(Twice<L> x, Twice<L> y) {
  return {copysign(x.a, y.a), copysign(x.b, y.b)};
}
template <class L>
PMAF_INLINE TwiceMask<typename L::mask> finite(Twice<L> x) {
  return {finite(x.a), finite(x.b)};
}
template <class L>
PMAF_INLINE Twice<L> fma(Twice<L> x, Twice<L> y, Twice<L> z) {
  return {fma(x.a, y.a, z.a), fma(x.b, y.b, z.b)};
}
template <class L>
PMAF_INLINE Twice<L> fnma(Twice<L> x, Twice<L> y, Twice<L> z) {
  return {fnma(x.a, y.a, z.a), fnma(x.b, y.b, z.b)};
}
template <class L>
PMAF_INLINE Twice<L> sqrt(Twice<L> x) {
  return {sqrt(x.a), sqrt(x.b)};
}
template <class L>
PMAF_INLINE Twice<L> inverse_power_of_two(Twice<L> x) {
  return {inverse_power_of_two(x.a), inverse_power_of_two(x.b)};
}

}  // namespace PMAF_ISA
}  // namespace pmaf
