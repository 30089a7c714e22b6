// Lanes: W numbers of one type, each belonging to another matrix, on the vector extensions of GCC and Clang.
//
// Every operation acts on each lane alone and rounds as the scalar operation does, so that what a lane computes depends
// neither on its neighbours nor on W. The compiler must not contract a*b + c by itself (-ffp-contract=off): where a
// fused product is wanted the code says fma, which is a product and a sum on processors without one.
//
// The sources are compiled once for each instruction set, in a namespace of its own (PMAF_ISA), so that the linker can
// never mix them.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef PMAF_ISA
#define PMAF_ISA baseline
#endif

#define PMAF_INLINE inline __attribute__((always_inline))

namespace pmaf {
namespace PMAF_ISA {

// Bytes of the widest register.
#if defined(__AVX512F__)
constexpr int register_bytes = 64;
#elif defined(__AVX2__)
constexpr int register_bytes = 32;
#else
constexpr int register_bytes = 16;
#endif

template <class T>
struct Bits;
template <>
struct Bits<float> {
  using type = std::int32_t;
  static constexpr int mantissa = 23, bias = 127;
};
template <>
struct Bits<double> {
  using type = std::int64_t;
  static constexpr int mantissa = 52, bias = 1023;
};

template <class I>
constexpr I sign_bit = static_cast<I>(std::uint64_t(1) << (8 * sizeof(I) - 1));

// The most lanes that fit one register.
template <class T>
constexpr int full_width = register_bytes / static_cast<int>(sizeof(T));

// W unsigned integers of 64 bits.
template <int W>
struct Unsigned {
  typedef std::uint64_t V __attribute__((vector_size(8 * W)));
};

// Which lanes a condition holds in: all bits of a lane, or none.
template <class T, int W>
struct Mask {
  using I = typename Bits<T>::type;
  typedef I V __attribute__((vector_size(sizeof(I) * W)));
  V v;

  PMAF_INLINE friend Mask operator&(Mask a, Mask b) { return {a.v & b.v}; }
  PMAF_INLINE friend Mask operator|(Mask a, Mask b) { return {a.v | b.v}; }
  PMAF_INLINE friend Mask operator~(Mask a) { return {~a.v}; }
  PMAF_INLINE bool operator[](int lane) const { return v[lane] != 0; }
};

template <class T, int W>
PMAF_INLINE bool any(Mask<T, W> m) {
#if defined(__AVX512F__)
  if constexpr (sizeof(m.v) == 64) return _mm512_test_epi64_mask((__m512i)m.v, (__m512i)m.v) != 0;
#endif
#if defined(__AVX__)
  if constexpr (sizeof(m.v) == 32) return !_mm256_testz_si256((__m256i)m.v, (__m256i)m.v);
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(m.v) == 16) return _mm_movemask_epi8((__m128i)m.v) != 0;
#endif
  typename Bits<T>::type r = 0;
  for (int l = 0; l < W; l++) r |= m.v[l];
  return r != 0;
}

template <class T, int W>
PMAF_INLINE bool all(Mask<T, W> m) {
  return !any(~m);
}

template <class T, int W>
struct Lanes {
  using scalar = T;
  using real = Lanes;
  using mask = Mask<T, W>;
  static constexpr int width = W;
  static constexpr bool is_complex = false;
  typedef T V __attribute__((vector_size(sizeof(T) * W)));
  typedef T Unaligned __attribute__((vector_size(sizeof(T) * W), aligned(alignof(T)), may_alias));
  V v;

  Lanes() = default;
  PMAF_INLINE Lanes(T x) : v(x - V{}) {}  // in every lane; x − 0 keeps the sign of a zero
  PMAF_INLINE static Lanes of(V x) {
    Lanes r;
    r.v = x;
    return r;
  }
  PMAF_INLINE T operator[](int lane) const { return v[lane]; }
  PMAF_INLINE void set(int lane, T x) { v[lane] = x; }

  PMAF_INLINE static Lanes load(const T* p) { return of(*reinterpret_cast<const Unaligned*>(p)); }
  PMAF_INLINE void store(T* p) const { *reinterpret_cast<Unaligned*>(p) = v; }

  PMAF_INLINE friend Lanes operator+(Lanes a, Lanes b) { return of(a.v + b.v); }
  PMAF_INLINE friend Lanes operator-(Lanes a, Lanes b) { return of(a.v - b.v); }
  PMAF_INLINE friend Lanes operator*(Lanes a, Lanes b) { return of(a.v * b.v); }
  PMAF_INLINE friend Lanes operator/(Lanes a, Lanes b) { return of(a.v / b.v); }
  PMAF_INLINE friend Lanes operator-(Lanes a) { return of(-a.v); }
  PMAF_INLINE Lanes& operator+=(Lanes b) { return v += b.v, *this; }
  PMAF_INLINE Lanes& operator-=(Lanes b) { return v -= b.v, *this; }
  PMAF_INLINE Lanes& operator*=(Lanes b) { return v *= b.v, *this; }
  PMAF_INLINE friend mask operator<(Lanes a, Lanes b) { return {a.v < b.v}; }
  PMAF_INLINE friend mask operator>(Lanes a, Lanes b) { return {a.v > b.v}; }
  PMAF_INLINE friend mask operator<=(Lanes a, Lanes b) { return {a.v <= b.v}; }
  PMAF_INLINE friend mask operator>=(Lanes a, Lanes b) { return {a.v >= b.v}; }
  PMAF_INLINE friend mask operator==(Lanes a, Lanes b) { return {a.v == b.v}; }
};

// m ? a : b
template <class T, int W>
PMAF_INLINE Lanes<T, W> select(Mask<T, W> m, Lanes<T, W> a, Lanes<T, W> b) {
  return Lanes<T, W>::of(m.v ? a.v : b.v);
}

template <class T, int W>
PMAF_INLINE Lanes<T, W> abs(Lanes<T, W> a) {
  using M = typename Mask<T, W>::V;
  using V = typename Lanes<T, W>::V;
  using I = typename Bits<T>::type;
  return Lanes<T, W>::of((V)((M)a.v & ~(M{} + sign_bit<I>)));
}

// The larger one; b where a is NaN.
template <class T, int W>
PMAF_INLINE Lanes<T, W> max(Lanes<T, W> a, Lanes<T, W> b) {
  return select(a > b, a, b);
}

template <class T, int W>
PMAF_INLINE Lanes<T, W> min(Lanes<T, W> a, Lanes<T, W> b) {
  return select(a < b, a, b);
}

// |a| with the sign of b.
template <class T, int W>
PMAF_INLINE Lanes<T, W> copysign(Lanes<T, W> a, Lanes<T, W> b) {
  using M = typename Mask<T, W>::V;
  using V = typename Lanes<T, W>::V;
  using I = typename Bits<T>::type;
  const M sign = M{} + sign_bit<I>;
  return Lanes<T, W>::of((V)(((M)a.v & ~sign) | ((M)b.v & sign)));
}

// Where a is neither infinite nor NaN.
template <class T, int W>
PMAF_INLINE Mask<T, W> finite(Lanes<T, W> a) {
  return a - a == Lanes<T, W>(T(0));
}

// a·b + c, rounded once where the processor can.
template <class T, int W>
PMAF_INLINE Lanes<T, W> fma(Lanes<T, W> a, Lanes<T, W> b, Lanes<T, W> c) {
  [[maybe_unused]] typedef typename Lanes<T, W>::V V;
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) {
    if constexpr (sizeof(T) == 4) return Lanes<T, W>::of((V)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v));
    else return Lanes<T, W>::of((V)_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v));
  }
#endif
#if defined(__FMA__)
  if constexpr (sizeof(V) == 32) {
    if constexpr (sizeof(T) == 4) return Lanes<T, W>::of((V)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v));
    else return Lanes<T, W>::of((V)_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v));
  }
  if constexpr (sizeof(V) == 16) {
    if constexpr (sizeof(T) == 4) return Lanes<T, W>::of((V)_mm_fmadd_ps((__m128)a.v, (__m128)b.v, (__m128)c.v));
    else return Lanes<T, W>::of((V)_mm_fmadd_pd((__m128d)a.v, (__m128d)b.v, (__m128d)c.v));
  }
#elif defined(__aarch64__)
  if constexpr (sizeof(V) == 16) {
    if constexpr (sizeof(T) == 4) return Lanes<T, W>::of((V)vfmaq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v));
    else return Lanes<T, W>::of((V)vfmaq_f64((float64x2_t)c.v, (float64x2_t)a.v, (float64x2_t)b.v));
  }
#endif
#if defined(__FMA__) || defined(__aarch64__)
  V r{};
  for (int l = 0; l < W; l++) {
    if constexpr (sizeof(T) == 4) r[l] = __builtin_fmaf(a.v[l], b.v[l], c.v[l]);
    else r[l] = __builtin_fma(a.v[l], b.v[l], c.v[l]);
  }
  return Lanes<T, W>::of(r);
#else
  return a * b + c;
#endif
}

// c − a·b
template <class T, int W>
PMAF_INLINE Lanes<T, W> fnma(Lanes<T, W> a, Lanes<T, W> b, Lanes<T, W> c) {
  return fma(-a, b, c);
}

template <class T, int W>
PMAF_INLINE Lanes<T, W> sqrt(Lanes<T, W> a) {
  using V = typename Lanes<T, W>::V;
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) {
    if constexpr (sizeof(T) == 4) return Lanes<T, W>::of((V)_mm512_sqrt_ps((__m512)a.v));
    else return Lanes<T, W>::of((V)_mm512_sqrt_pd((__m512d)a.v));
  }
#endif
#if defined(__AVX__)
  if constexpr (sizeof(V) == 32) {
    if constexpr (sizeof(T) == 4) return Lanes<T, W>::of((V)_mm256_sqrt_ps((__m256)a.v));
    else return Lanes<T, W>::of((V)_mm256_sqrt_pd((__m256d)a.v));
  }
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(V) == 16) {
    if constexpr (sizeof(T) == 4) return Lanes<T, W>::of((V)_mm_sqrt_ps((__m128)a.v));
    else return Lanes<T, W>::of((V)_mm_sqrt_pd((__m128d)a.v));
  }
#endif
  V r{};
  for (int l = 0; l < W; l++) {
    if constexpr (sizeof(T) == 4) r[l] = __builtin_sqrtf(a.v[l]);
    else r[l] = __builtin_sqrt(a.v[l]);
  }
  return Lanes<T, W>::of(r);
}

// Integers as numbers and back, for |i| < 2^51. Few processors convert integers of 64 bits many at a time, but all of them
// add: the low bits of 3·2^51 + i are those of i.
template <class T, int W>
PMAF_INLINE Lanes<T, W> to_numbers(typename Mask<T, W>::V i) {
#if !defined(__AVX512DQ__)
  if constexpr (sizeof(T) == 8) {
    using V = typename Lanes<T, W>::V;
    const Lanes<T, W> large(0x3p51);
    return Lanes<T, W>::of((V)(i + (typename Mask<T, W>::V)large.v)) - large;
  }
#endif
  return Lanes<T, W>::of(__builtin_convertvector(i, typename Lanes<T, W>::V));
}

template <class T, int W>
PMAF_INLINE typename Mask<T, W>::V to_integers(Lanes<T, W> a) {
  using M = typename Mask<T, W>::V;
#if !defined(__AVX512DQ__)
  if constexpr (sizeof(T) == 8) {
    const Lanes<T, W> large(0x3p51);
    return (M)(a + large).v - (M)large.v;
  }
#endif
  return __builtin_convertvector(a.v, M);
}

// The exponent e of 2^e ≤ |a| < 2^(e+1) of normal numbers, as a number of the type.
template <class T, int W>
PMAF_INLINE Lanes<T, W> exponent(Lanes<T, W> a) {
  using M = typename Mask<T, W>::V;
  return to_numbers<T, W>((((M)abs(a).v) >> Bits<T>::mantissa) - Bits<T>::bias);
}

// 2^e for integers e whose power is a normal number.
template <class T, int W>
PMAF_INLINE Lanes<T, W> power_of_two(Lanes<T, W> e) {
  return Lanes<T, W>::of((typename Lanes<T, W>::V)((to_integers(e) + Bits<T>::bias) << Bits<T>::mantissa));
}

// 2^−e for 2^e ≤ a < 2^(e+1), a not negative.
template <class T, int W>
PMAF_INLINE Lanes<T, W> inverse_power_of_two(Lanes<T, W> a) {
  using M = typename Mask<T, W>::V;
  const M e = (M)a.v >> Bits<T>::mantissa;
  return Lanes<T, W>::of((typename Lanes<T, W>::V)((2 * Bits<T>::bias - e) << Bits<T>::mantissa));
}

template <class To, class T, int W>
PMAF_INLINE Lanes<To, W> convert(Lanes<T, W> a) {
  return Lanes<To, W>::of(__builtin_convertvector(a.v, typename Lanes<To, W>::V));
}

// W numbers of another type from memory.
template <class To, int W, class T>
PMAF_INLINE Lanes<To, W> load_as(const T* p) {
  return convert<To>(Lanes<T, W>::load(p));
}

template <class T, class From, int W>
PMAF_INLINE void store_as(T* p, Lanes<From, W> a) {
  convert<T>(a).store(p);
}

// Has `count` numbers brought nearer, which need not exist. Few processors look ahead across the end of a page by themselves.
template <class T>
PMAF_INLINE void prefetch(const T* from, std::ptrdiff_t count) {
  constexpr int line = 64 / static_cast<int>(sizeof(T));
  for (std::ptrdiff_t i = 0; i < count; i += line) __builtin_prefetch(from + i);
}

// Complex lanes: a pair of real ones.
template <class L>
struct Complex {
  using scalar = typename L::scalar;
  using real = L;
  using mask = typename L::mask;
  static constexpr int width = L::width;
  static constexpr bool is_complex = true;
  L re, im;

  Complex() = default;
  PMAF_INLINE Complex(L r, L i) : re(r), im(i) {}
  PMAF_INLINE Complex(L r) : re(r), im(scalar(0)) {}
  PMAF_INLINE Complex(scalar r) : re(r), im(scalar(0)) {}

  PMAF_INLINE friend Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
  PMAF_INLINE friend Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
  PMAF_INLINE friend Complex operator-(Complex a) { return {-a.re, -a.im}; }
  PMAF_INLINE friend Complex operator*(Complex a, Complex b) {
    return {fnma(a.im, b.im, a.re * b.re), fma(a.im, b.re, a.re * b.im)};
  }
  PMAF_INLINE friend Complex operator*(Complex a, L b) { return {a.re * b, a.im * b}; }
  PMAF_INLINE friend Complex operator*(L a, Complex b) { return {a * b.re, a * b.im}; }
  PMAF_INLINE Complex& operator+=(Complex b) { return *this = *this + b; }
  PMAF_INLINE Complex& operator-=(Complex b) { return *this = *this - b; }
};

template <class L>
PMAF_INLINE Complex<L> fma(Complex<L> a, Complex<L> b, Complex<L> c) {
  return {fnma(a.im, b.im, fma(a.re, b.re, c.re)), fma(a.im, b.re, fma(a.re, b.im, c.im))};
}
template <class L>
PMAF_INLINE Complex<L> fma(Complex<L> a, L b, Complex<L> c) {
  return {fma(a.re, b, c.re), fma(a.im, b, c.im)};
}
template <class L>
PMAF_INLINE Complex<L> fnma(Complex<L> a, Complex<L> b, Complex<L> c) {
  return fma(-a, b, c);
}
template <class L>
PMAF_INLINE Complex<L> fnma(Complex<L> a, L b, Complex<L> c) {
  return fma(-a, b, c);
}
template <class L>
PMAF_INLINE Complex<L> select(typename L::mask m, Complex<L> a, Complex<L> b) {
  return {select(m, a.re, b.re), select(m, a.im, b.im)};
}

// What real and complex lanes share, so that one formula serves both.
template <class T, int W>
PMAF_INLINE Lanes<T, W> conj(Lanes<T, W> a) {
  return a;
}
template <class L>
PMAF_INLINE Complex<L> conj(Complex<L> a) {
  return {a.re, -a.im};
}
template <class T, int W>
PMAF_INLINE Lanes<T, W> real_part(Lanes<T, W> a) {
  return a;
}
template <class L>
PMAF_INLINE L real_part(Complex<L> a) {
  return a.re;
}
// |a|² + c
template <class T, int W>
PMAF_INLINE Lanes<T, W> add_square(Lanes<T, W> a, Lanes<T, W> c) {
  return fma(a, a, c);
}
template <class L>
PMAF_INLINE L add_square(Complex<L> a, L c) {
  return fma(a.im, a.im, fma(a.re, a.re, c));
}
// conj(a)·b + c
template <class T, int W>
PMAF_INLINE Lanes<T, W> conj_fma(Lanes<T, W> a, Lanes<T, W> b, Lanes<T, W> c) {
  return fma(a, b, c);
}
template <class L>
PMAF_INLINE Complex<L> conj_fma(Complex<L> a, Complex<L> b, Complex<L> c) {
  return fma(conj(a), b, c);
}
// a·conj(b) + c
template <class T, int W>
PMAF_INLINE Lanes<T, W> fma_conj(Lanes<T, W> a, Lanes<T, W> b, Lanes<T, W> c) {
  return fma(a, b, c);
}
template <class L>
PMAF_INLINE Complex<L> fma_conj(Complex<L> a, Complex<L> b, Complex<L> c) {
  return {fma(a.im, b.im, fma(a.re, b.re, c.re)), fma(a.im, b.re, fnma(a.re, b.im, c.im))};
}

// Reads one number of each of `lanes` items that lie `stride` numbers apart; lanes beyond repeat the first item.
template <class T, int W>
PMAF_INLINE Lanes<T, W> gather(const T* p, std::ptrdiff_t stride, int lanes) {
  Lanes<T, W> r;
  if (lanes == W)
    for (int l = 0; l < W; l++) r.v[l] = p[l * stride];
  else
    for (int l = 0; l < W; l++) r.v[l] = p[(l < lanes ? l : 0) * stride];
  return r;
}

template <class T, int W>
PMAF_INLINE void scatter(T* p, std::ptrdiff_t stride, int lanes, Lanes<T, W> a) {
  for (int l = 0; l < lanes; l++) p[l * stride] = a.v[l];
}

// The two shuffles of one stage of a transposition: lanes l with l & s change places between rows s apart.
template <class T, int W, int s, int... l>
PMAF_INLINE void exchange(Lanes<T, W>& a, Lanes<T, W>& b, std::integer_sequence<int, l...>) {
  const auto low = __builtin_shufflevector(a.v, b.v, ((l & s) ? W + l - s : l)...);
  const auto high = __builtin_shufflevector(a.v, b.v, ((l & s) ? W + l : l + s)...);
  a.v = low, b.v = high;
}

template <class T, int W, int s>
PMAF_INLINE void transposition_stage(Lanes<T, W>* rows) {
  if constexpr (s < W) {
    for (int i = 0; i < W; i++)
      if (!(i & s)) exchange<T, W, s>(rows[i], rows[i + s], std::make_integer_sequence<int, W>());
    transposition_stage<T, W, 2 * s>(rows);
  }
}

// W vectors of W numbers: row i becomes column i.
template <class T, int W>
PMAF_INLINE void transpose(Lanes<T, W>* rows) {
  transposition_stage<T, W, 1>(rows);
}

// Item-contiguous memory into lanes: to[i·W + l] = from[l·stride + i] for i < count. Lanes beyond repeat the first item.
template <class T, int W>
void load_items(const T* from, std::ptrdiff_t stride, int lanes, std::ptrdiff_t count, T* to) {
  const std::ptrdiff_t whole = count - count % W;
  std::ptrdiff_t i = 0;
  for (; i < whole; i += W) {
    Lanes<T, W> rows[W];
    for (int l = 0; l < W; l++) rows[l] = Lanes<T, W>::load(from + (l < lanes ? l : 0) * stride + i);
    transpose(rows);
    for (int l = 0; l < W; l++) rows[l].store(to + (i + l) * W);
  }
  for (; i < count; i++) gather<T, W>(from + i, stride, lanes).store(to + i * W);
}

// Lanes into item-contiguous memory: to[l·stride + i] = from[i·W + l] for i < count and l < lanes.
template <class T, int W>
void store_items(const T* from, std::ptrdiff_t count, T* to, std::ptrdiff_t stride, int lanes) {
  const std::ptrdiff_t whole = count - count % W;
  std::ptrdiff_t i = 0;
  for (; i < whole; i += W) {
    Lanes<T, W> rows[W];
    for (int l = 0; l < W; l++) rows[l] = Lanes<T, W>::load(from + (i + l) * W);
    transpose(rows);
    for (int l = 0; l < lanes; l++) rows[l].store(to + l * stride + i);
  }
  for (; i < count; i++) scatter(to + i, stride, lanes, Lanes<T, W>::load(from + i * W));
}

}  // namespace PMAF_ISA
}  // namespace pmaf
