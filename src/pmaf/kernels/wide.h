// Lanes of any type as numbers in double precision: W lanes of float are two registers of double. What streams through
// memory takes one `half` after the other; what waits for divisions, like all that is done with T, takes both in
// lock-step. In memory a wide array has the layout of the array that it stands for.
#pragma once

#include <type_traits>

#include "sturm.h"

namespace pmaf {
namespace PMAF_ISA {

template <class S>
struct Wide {
  static constexpr int W = S::width;
  static constexpr int parts = S::is_complex ? 2 : 1;
  static constexpr int Wd = W < full_width<double> ? W : full_width<double>;
  static constexpr int halves = W / Wd;
  static constexpr int stride = W * parts;  // numbers in a row of a wide array
  using T = typename S::scalar;
  using D = Lanes<double, Wd>;
  using All = std::conditional_t<halves == 2, Twice<D>, D>;  // one real number of each lane, in lock-step
  template <class A, bool c>
  struct Choose {
    using type = A;
  };
  template <class A>
  struct Choose<A, true> {
    using type = Complex<A>;
  };
  using C = typename Choose<D, S::is_complex>::type;

  // From lanes of the item's type, and from wide arrays.
  template <class F>
  PMAF_INLINE static C load(const F* p, int half) {
    p += half * Wd;
    if constexpr (S::is_complex) return C(load_as<double, Wd>(p), load_as<double, Wd>(p + W));
    else return load_as<double, Wd>(p);
  }
  template <class F>
  PMAF_INLINE static void store(F* p, int half, C x) {
    p += half * Wd;
    if constexpr (S::is_complex) store_as<F>(p, x.re), store_as<F>(p + W, x.im);
    else store_as<F>(p, x);
  }
  PMAF_INLINE static C load(const S* p, int half) { return load(reinterpret_cast<const T*>(p), half); }
  PMAF_INLINE static void store(S* p, int half, C x) { store(reinterpret_cast<T*>(p), half, x); }
  // One real number of each lane.
  PMAF_INLINE static D load_real(const double* p, int half) { return D::load(p + half * Wd); }
  PMAF_INLINE static void store_real(double* p, int half, D x) { x.store(p + half * Wd); }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
