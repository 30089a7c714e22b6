// The reduction of X u = λ B u to a standard problem, a block of items in lanes:
//
//     B = L Lᴴ,   R = L⁻¹ X L⁻ᴴ,   R v = λ v,   v = Lᴴu.
//
// B and X are first multiplied by d dᵀ entry by entry, d the powers of two that bring the diagonal of B near one: that rounds
// nothing, R is the same, and bad scaling by the diagonal alone costs no digits. A pivot within the rounding of what it is
// left of, n·ε, counts as zero.
//
// Row i of L, of Y = L⁻¹X and of R comes from the rows before it:
//
//     lᵢⱼ = (bᵢⱼ − Σ_{p<j} lᵢₚ l̄ⱼₚ)/lⱼⱼ,   Yᵢ = (Xᵢ − Σ_{p<i} lᵢₚ Yₚ)/lᵢᵢ,   rᵢⱼ = (yᵢⱼ − Σ_{p<j} rᵢₚ l̄ⱼₚ)/lⱼⱼ, j ≤ i.
#pragma once

#include "generalised_calls.h"
#include "block.h"

namespace pmaf {
namespace PMAF_ISA {

template <class S>
struct Reducer {
  using L = typename S::real;
  using T = typename S::scalar;
  static constexpr int W = S::width, parts = S::is_complex ? 2 : 1, rows = 4;

  int n;
  S *B, *X;        // n×n, row by row; B becomes L, X becomes Y and R
  L *d, *inverse;  // n each: the scaling, and one over the diagonal of L

  Reducer(int n_, Arena& arena) : n(n_) {
    B = arena.take<S>(std::ptrdiff_t(n) * n);
    X = arena.take<S>(std::ptrdiff_t(n) * n);
    d = arena.take<L>(n);
    inverse = arena.take<L>(n);
  }

  S& b(int i, int j) const { return B[std::ptrdiff_t(i) * n + j]; }
  S& x(int i, int j) const { return X[std::ptrdiff_t(i) * n + j]; }

  // The larger of |Re a|, |Im a| and b.
  PMAF_INLINE static L peak(S a, L b) {
    if constexpr (S::is_complex) return max(abs(a.re), max(abs(a.im), b));
    else return max(abs(a), b);
  }

  // Hermitian parts of what was read, scaled: B in its lower triangle, X whole. Finds the lanes whose diagonal of B is
  // positive, and those in which no entry is further than `allowed`, relative to the largest one, from its mirror image.
  void scale(double allowed, typename L::mask& usable, typename L::mask& hermitian) const {
    constexpr T smallest = sizeof(T) == 4 ? T(0x1p-126) : T(0x1p-1022);
    using I = typename L::mask::V;
    usable = L(T(0)) == L(T(0));
    for (int i = 0; i < n; i++) {
      const L pivot = real_part(b(i, i));
      const auto fine = (pivot >= L(smallest)) & finite(pivot);
      usable = usable & fine;
      const L e = exponent(select(fine, pivot, L(T(1))));
      const L half = L::of(__builtin_convertvector(__builtin_convertvector(e.v, I) >> 1, typename L::V));
      d[i] = power_of_two(-half);
    }
    L skew[2] = {L(T(0)), L(T(0))}, size[2] = {L(T(0)), L(T(0))};
    for (int i = 0; i < n; i++)
      for (int j = 0; j <= i; j++) {
        const L half = L(T(0.5)) * d[j];
        S* lower[2] = {&b(i, j), &x(i, j)};
        const S upper[2] = {conj(b(j, i)), conj(x(j, i))};
        for (int q = 0; q < 2; q++) {
          const S other = upper[q] * half * d[i];
          *lower[q] = *lower[q] * half * d[i];
          skew[q] = peak(*lower[q] - other, skew[q]);
          *lower[q] = *lower[q] + other;
          size[q] = peak(*lower[q], size[q]);
        }
        x(j, i) = conj(x(i, j));
      }
    const L most = L(T(allowed));
    hermitian = (skew[0] <= size[0] * most) & (skew[1] <= size[1] * most);
  }

  // Numbers j … j + columns − 1 of a row t of (from)·L⁻ᴴ, from those before them; `to` may be `from`.
  template <int columns>
  PMAF_INLINE void strip(int j, const S* from, S* to) const {
    S sums[columns];
    for (int q = 0; q < columns; q++) sums[q] = from[j + q];
    for (int p = 0; p < j; p++) {
      const S left = -to[p];
      for (int q = 0; q < columns; q++) sums[q] = conj_fma(b(j + q, p), left, sums[q]);
    }
    for (int q = 0; q < columns; q++) {
      for (int p = 0; p < q; p++) sums[q] = conj_fma(b(j + q, j + p), -to[j + p], sums[q]);
      to[j + q] = sums[q] * inverse[j + q];
    }
  }
  void row(const S* from, S* to, int count) const {
    int j = 0;
    for (; j + rows <= count; j += rows) strip<rows>(j, from, to);
    for (; j < count; j++) strip<1>(j, from, to);
  }

  // B = L Lᴴ in place; the lanes in which every pivot stands out of rounding.
  typename L::mask factorise() const {
    auto definite = L(T(0)) == L(T(0));
    for (int i = 0; i < n; i++) {
      const L before = real_part(b(i, i));
      row(B + std::ptrdiff_t(i) * n, B + std::ptrdiff_t(i) * n, i);
      L pivot = before;
      for (int p = 0; p < i; p++) pivot = pivot - add_square(b(i, p), L(T(0)));
      const auto fine = pivot > before * L(T(n * epsilon<T>));
      definite = definite & fine;
      const L root = sqrt(select(fine, pivot, L(T(1))));
      b(i, i) = S(root);
      inverse[i] = L(T(1)) / root;
    }
    return definite;
  }

  // X ← L⁻¹X, four columns at a time.
  template <int columns>
  PMAF_INLINE void forth(int i, int j) const {
    S sums[columns];
    for (int q = 0; q < columns; q++) sums[q] = x(i, j + q);
    for (int p = 0; p < i; p++) {
      const S left = -b(i, p);
      for (int q = 0; q < columns; q++) sums[q] = fma(left, x(p, j + q), sums[q]);
    }
    for (int q = 0; q < columns; q++) x(i, j + q) = sums[q] * inverse[i];
  }
  void reduce() const {
    for (int i = 0; i < n; i++) {
      int j = 0;
      for (; j + rows <= n; j += rows) forth<rows>(i, j);
      for (; j < n; j++) forth<1>(i, j);
    }
    for (int i = 0; i < n; i++) {
      S* own = X + std::ptrdiff_t(i) * n;
      row(own, own, i + 1);
      own[i] = S(real_part(own[i]));
      for (int j = 0; j < i; j++) x(j, i) = conj(own[j]);  // row j has been used up
    }
  }
};

template <class S>
std::size_t reduction_memory(const ReductionCall& call) {
  Arena arena{nullptr};
  Reducer<S>(static_cast<int>(call.n), arena);
  return arena.used;
}

// Items first … first + lanes − 1 of a call; the or of their codes.
template <class S>
int reduction_block(const ReductionCall& call, std::int64_t first, int lanes, char* memory) {
  using L = typename S::real;
  using T = typename S::scalar;
  constexpr int W = S::width, parts = S::is_complex ? 2 : 1;
  const int n = static_cast<int>(call.n);
  Arena arena{memory};
  const Reducer<S> item(n, arena);
  const std::ptrdiff_t numbers = std::ptrdiff_t(n) * n * parts;
  load_items<T, W>(static_cast<const T*>(call.B) + first * numbers, numbers, lanes, numbers, reinterpret_cast<T*>(item.B));
  load_items<T, W>(static_cast<const T*>(call.X) + first * numbers, numbers, lanes, numbers, reinterpret_cast<T*>(item.X));
  typename L::mask definite, hermitian;
  item.scale(call.allowed, definite, hermitian);
  definite = definite & item.factorise();
  item.reduce();
  store_items<T, W>(reinterpret_cast<const T*>(item.X), numbers, static_cast<T*>(call.reduced) + first * numbers, numbers, lanes);
  for (int i = 0; i < n; i++) {  // Lᵀ in the place of X, unscaled
    const L up = L(T(1)) / item.d[i];
    for (int j = 0; j <= i; j++) {
      item.x(j, i) = item.b(i, j) * up;
      if (j < i) item.x(i, j) = S(T(0));
    }
  }
  store_items<T, W>(reinterpret_cast<const T*>(item.X), numbers, static_cast<T*>(call.factor) + first * numbers, numbers, lanes);
  int seen = 0;
  for (int l = 0; l < lanes; l++) {
    const int code = (definite[l] ? REDUCED : NOT_DEFINITE) | (hermitian[l] ? REDUCED : NOT_HERMITIAN);
    call.code[first + l] = code;
    seen |= code;
  }
  return seen;
}

}  // namespace PMAF_ISA
}  // namespace pmaf
