// The backward pass of selected eigenpairs in lanes, from the factorisation that the forward pass left:
//
//     wᵢ = (λᵢI − X)⁺ hᵢ,   X̄ = ½ Σᵢ (wᵢuᵢᴴ + uᵢwᵢᴴ) + Σᵢ λ̄ᵢ uᵢuᵢᴴ,
//
// O(n²) for each pair. In single precision w is refined once against X itself in double precision. What lies along
// vectors whose eigenvalue coincides with λᵢ is left out; where that is an unwanted one the factorisation cannot tell
// which vectors these are, and the item gets a code instead of a gradient.
//
// A complex u is turned so that s = rᴴu > 0, r the reference. Where uᴴdu = 0, the turned one moves by
//
//     dw = du − i u Im(rᴴdu)/s,   so that   Re(w̄ᴴdw) = Re(hᴴdu)   with   h = w̄ − i r Im(uᴴw̄)/s,
//
// whose Im(uᴴh) is zero, as it is of w̄ itself where the loss does not see the phase.
#pragma once

#include "block.h"
#include "calls.h"
#include "references.h"
#include "signs.h"

namespace pmaf {
namespace PMAF_ISA {

template <class S>
struct GradientRoom {
  double *tolerance, *rest;
  S *W, *sum;
  GradientRoom(int n, int k, Arena& arena) {
    tolerance = arena.take<double>(S::width);
    rest = arena.take<double>(std::ptrdiff_t(n) * Wide<S>::stride);
    W = arena.take<S>(std::ptrdiff_t(n) * k);
    sum = arena.take<S>(std::ptrdiff_t(n) * Block<S>::staged_rows(n));
  }
};

template <class S>
std::size_t eigen_gradient_memory(const EigenGradientCall& call) {
  const int n = static_cast<int>(call.n), k = static_cast<int>(call.k);
  Arena arena{nullptr};
  Block<S>(n, k, true, arena, false);
  GradientRoom<S>(n, k, arena);
  return arena.used;
}

// Columns of item-contiguous (n, k) tensors, one after the other, into lanes and back.
template <class S>
void load_columns(const typename S::scalar* from, int n, int k, int lanes, S* to) {
  using T = typename S::scalar;
  constexpr int parts = S::is_complex ? 2 : 1;
  const std::ptrdiff_t item = std::ptrdiff_t(n) * k * parts;
  if (k == 1) return load_items<T, S::width>(from, item, lanes, item, reinterpret_cast<T*>(to));
  for (int w = 0; w < k; w++)
    for (int i = 0; i < n; i++)
      for (int q = 0; q < parts; q++)
        gather<T, S::width>(from + (std::ptrdiff_t(i) * k + w) * parts + q, item, lanes)
            .store(reinterpret_cast<T*>(to + std::ptrdiff_t(w) * n + i) + q * S::width);
}

template <class S>
void store_columns(const S* from, int n, int k, int lanes, typename S::scalar* to) {
  using T = typename S::scalar;
  constexpr int parts = S::is_complex ? 2 : 1;
  const std::ptrdiff_t item = std::ptrdiff_t(n) * k * parts;
  if (k == 1) return store_items<T, S::width>(reinterpret_cast<const T*>(from), item, to, item, lanes);
  for (int w = 0; w < k; w++)
    for (int i = 0; i < n; i++)
      for (int q = 0; q < parts; q++)
        scatter(to + (std::ptrdiff_t(i) * k + w) * parts + q, item, lanes,
                Lanes<T, S::width>::load(reinterpret_cast<const T*>(from + std::ptrdiff_t(w) * n + i) + q * S::width));
}

// x·conj(y), rounded so that y·conj(x) is its conjugate to the last digit.
template <class T, int W>
PMAF_INLINE Lanes<T, W> outer(Lanes<T, W> x, Lanes<T, W> y) {
  return x * y;
}
template <class L>
PMAF_INLINE Complex<L> outer(Complex<L> x, Complex<L> y) {
  return {x.re * y.re + x.im * y.im, x.im * y.re - x.re * y.im};
}

// Cotangents h of vectors u whose phase does not move, from those of the turned ones.
template <class S>
void free_phase(const EigenGradientCall& call, std::int64_t first, int lanes, const S* U, S* H) {
  using V = Wide<S>;
  using D = typename V::D;
  using C = typename V::C;
  using T = typename V::T;
  const int n = static_cast<int>(call.n), k = static_cast<int>(call.k);
  const References<V> reference(call.reference, call.reference_item, call.reference_columns, first, lanes);
  alignas(64) T of_items[V::W];
  for (int w = 0; w < k; w++, U += n, H += n) {
    gather<T, V::W>(static_cast<const T*>(call.phase) + first * k + w, k, lanes).store(of_items);
    for (int half = 0; half < V::halves; half++) {
      const D inner = load_as<double, V::Wd>(of_items + half * V::Wd), s = abs(inner);
      C seen(0.0);
      for (int i = 0; i < n; i++) seen = conj_fma(V::load(U + i, half), V::load(H + i, half), seen);
      const D along = select(s > D(0.0), seen.im / select(s > D(0.0), s, D(1.0)), D(0.0));
      for (int i = 0; i < n; i++) {
        const C r = select(inner < D(0.0), C(deciding_number(i)), reference.entry(i, w, half)), h = V::load(H + i, half);
        V::store(H + i, half, C(fma(along, r.im, h.re), fnma(along, r.re, h.im)));
      }
    }
  }
}

// Items first … first + lanes − 1 of a call; the or of their codes.
template <class S>
int eigen_gradient_block(const EigenGradientCall& call, std::int64_t first, int lanes, char* memory) {
  using B = Block<S>;
  using L = typename B::L;
  using T = typename B::T;
  using V = typename B::V;
  using D = typename B::D;
  using C = typename B::C;
  constexpr int W = V::W, parts = V::parts, halves = V::halves, stride = V::stride;
  const int n = static_cast<int>(call.n), k = static_cast<int>(call.k);
  Arena arena{memory};
  B block(n, k, call.largest != 0, arena, false);
  const GradientRoom<S> room(n, k, arena);
  const std::ptrdiff_t numbers = std::ptrdiff_t(n) * n * parts, columns = std::ptrdiff_t(n) * k * parts;

  // Which items have an answer, and what counts as coinciding.
  alignas(64) T answered[W], scale[2][W];
  int codes[W], seen = 0;
  load_columns(static_cast<const T*>(call.vectors) + first * columns, n, k, lanes, block.U);
  const bool solving = call.H != nullptr;
  if (solving) {
    block.recall(static_cast<const T*>(call.X) + first * numbers,
                 static_cast<const T*>(call.factor) + first * eigen_factor_size(n) * parts, lanes);
    block.scale_tridiagonal();
    load_columns(static_cast<const T*>(call.H) + first * columns, n, k, lanes, room.W);
    if constexpr (S::is_complex)
      if (call.phase) free_phase(call, first, lanes, block.U, room.W);
  }
  for (int l = 0; l < W; l++) {
    const std::int64_t item = first + (l < lanes ? l : 0);
    const T* values = static_cast<const T*>(call.values) + item * k;
    codes[l] = call.code[item] & (NOT_FINITE | ASYMMETRIC);
    const bool answer = codes[l] == 0;
    if (solving) {
      const double norm = static_cast<double>(static_cast<const T*>(call.norm)[item]);
      const double down = static_cast<double>(block.scale_down[0][l]), further = static_cast<double>(block.scale_down[1][l]);
      const double tolerance = call.rtol * norm + call.atol;
      const double sign = block.sign(), last = static_cast<double>(values[k - 1]);
      if (answer && k < n && sign * (last - static_cast<double>(static_cast<const T*>(call.next)[item])) <= tolerance)
        codes[l] |= NEEDS_BASIS;
      room.tolerance[l] = tolerance * down * further;
      for (int w = 0; w < k; w++)
        block.values[std::ptrdiff_t(w) * W + l] =
            answer ? sign * (static_cast<double>(values[w]) * down * further) / block.unit[l] : 0.0;
      scale[0][l] = block.scale_down[0][l], scale[1][l] = block.scale_down[1][l];
    }
    answered[l] = codes[l] == 0 ? T(1) : T(0);
    if (l < lanes) seen |= codes[l];
  }
  const auto fine = L::load(answered) > L(T(0));

  if (solving) {
    if (sizeof(T) == 4)  // values as exact as the vectors say, not as single precision holds them
      for (int w = 0; w < k; w++) {
        block.multiply(block.u(w), block.image);
        for (int half = 0; half < halves; half++) {
          const D theta = real_part(block.dot(block.u(w), block.image, half)) / block.squared_norm(block.u(w), half);
          const D value = theta * D(block.sign()) / V::load_real(block.unit, half);
          double* known = block.values + std::ptrdiff_t(w) * W;
          V::store_real(known, half, select(finite(value), value, V::load_real(known, half)));
        }
      }
    for (int w = 0; w < k; w++) {
      S* out = room.W + std::ptrdiff_t(w) * n;
      for (int i = 0; i < n; i++) out[i] = select(fine, out[i], S(T(0)));
      block.factorise_for(w);
      block.widen(out, block.y);
      block.solve_for(w, block.y, room.tolerance);
      if (sizeof(T) == 4) {  // h − (λᵢI − X) w
        block.multiply(block.y, block.image);
        for (int half = 0; half < halves; half++) {
          const D lambda = block.value(w, half) * V::load_real(block.unit, half) * D(block.sign());
          for (int i = 0; i < n; i++) {
            const C product = V::load(block.image + std::ptrdiff_t(i) * stride, half);
            const C y = V::load(block.y + std::ptrdiff_t(i) * stride, half);
            V::store(room.rest + std::ptrdiff_t(i) * stride, half, V::load(out + i, half) + product - y * lambda);
          }
        }
        block.solve_for(w, room.rest, room.tolerance);
        for (std::ptrdiff_t i = 0; i < std::ptrdiff_t(n) * stride; i++) block.y[i] += room.rest[i];
      }
      block.narrow(block.y, out);
      const L down = L::load(scale[0]), further = L::load(scale[1]);
      for (int i = 0; i < n; i++) out[i] = select(fine, out[i] * down * further, S(T(0)));
    }
    if (call.W) store_columns(room.W, n, k, lanes, static_cast<T*>(call.W) + first * columns);
  }

  if (call.gradient) {
    const T* cotangent = static_cast<const T*>(call.values_cotangent);
    for (int w = 0; w < k; w++) {  // λ̄ u counts as a part of w, and ½ goes to u
      S *out = room.W + std::ptrdiff_t(w) * n, *u = block.u(w);
      const L factor = cotangent ? gather<T, W>(cotangent + first * k + w, k, lanes) : L(T(0));
      for (int i = 0; i < n; i++) {
        const S along = u[i] * factor;
        out[i] = select(fine, solving ? out[i] + along : along, S(T(0)));
        u[i] = select(fine, u[i] * L(T(0.5)), S(T(0)));
      }
    }
    T* gradient = static_cast<T*>(call.gradient) + first * numbers;
    const int rows = block.staged_rows();
    for (int i = 0; i < n; i++) {
      S* out = room.sum + std::ptrdiff_t(i % rows) * n;
      for (int w = 0; w < k; w++) {
        const S *u = block.u(w), *v = room.W + std::ptrdiff_t(w) * n;
        const S ui = u[i], vi = v[i];
        for (int j = 0; j < n; j++) {
          const S entry = outer(vi, u[j]) + outer(ui, v[j]);
          out[j] = w == 0 ? entry : out[j] + entry;
        }
      }
      if ((i + 1) % rows == 0)
        store_items<T, W>(reinterpret_cast<const T*>(room.sum), std::ptrdiff_t(rows) * n * parts,
                          gradient + std::ptrdiff_t(i + 1 - rows) * n * parts, numbers, lanes);
    }
  }
  if (call.gradient_code)
    for (int l = 0; l < lanes; l++) call.gradient_code[first + l] = codes[l];
  return seen;
}

}  // namespace PMAF_ISA
}  // namespace pmaf
