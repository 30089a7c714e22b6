// Right singular vectors in lanes. A factor is reduced to its triangle R by reflections, a block of rows at a time. One-sided
// Jacobi then turns pairs of columns of G = R until all are orthogonal,
//
//     ζ = g_pᵀg_q,  τ = (‖g_q‖² − ‖g_p‖²)/2ζ,  t = sign(τ)/(|τ| + √(1 + τ²)),  c = 1/√(1 + t²),  s = ct,
//     (g_p, g_q) ← (c g_p − s g_q, s g_p + c g_q),   and the same for V,
//
// so that G = RV, σⱼ = ‖gⱼ‖. It finds small singular values to high relative accuracy where scaling the columns is all that
// makes them small, and to ε‖F‖ at worst, and V is orthogonal to working precision.
//
// References: Demmel and Veselić, Jacobi's method is more accurate than QR (1992).
#pragma once

#include "single.h"
#include "tridiagonal.h"

namespace pmaf {
namespace PMAF_ISA {

// How many rows are taken at a time: about 24 kB of lanes.
constexpr int rows_at_once(int n) { return n >= 48 ? 8 : 384 / n; }

// Absorbs `count` rows (row by row in lanes) into the triangle R of order n, both in lanes, with `width` ≥ n numbers to a row:
// columns beyond the nth are carried along.
template <class R>
void absorb_rows(int n, int width, int count, R* rows, R* triangle) {
  using S = typename R::scalar;
  const R zero(0), one(1);
  for (int j = 0; j < n; j++) {
    R* top = triangle + std::ptrdiff_t(j) * width;
    R rest = zero;
    for (int r = 0; r < count; r++) rest = fma(rows[r * width + j], rows[r * width + j], rest);
    const auto trivial = rest <= R(negligible<S>);
    const R x0 = top[j], length = sqrt(fma(x0, x0, rest));
    const R alpha = select(trivial, x0, -copysign(length, x0)), v0 = x0 - alpha;
    const R square = fma(v0, v0, rest);
    const R scale = select(trivial, zero, R(S(2)) / select(trivial, one, square));
    top[j] = alpha;
    int l = j + 1;
    for (; l + 4 <= width; l += 4) {
      R a = v0 * top[l], b = v0 * top[l + 1], c = v0 * top[l + 2], d = v0 * top[l + 3];
      for (int r = 0; r < count; r++) {
        const R v = rows[r * width + j];
        const R* x = rows + r * width + l;
        a = fma(v, x[0], a), b = fma(v, x[1], b), c = fma(v, x[2], c), d = fma(v, x[3], d);
      }
      a *= scale, b *= scale, c *= scale, d *= scale;
      top[l] = fnma(a, v0, top[l]), top[l + 1] = fnma(b, v0, top[l + 1]);
      top[l + 2] = fnma(c, v0, top[l + 2]), top[l + 3] = fnma(d, v0, top[l + 3]);
      for (int r = 0; r < count; r++) {
        const R v = rows[r * width + j];
        R* x = rows + r * width + l;
        x[0] = fnma(a, v, x[0]), x[1] = fnma(b, v, x[1]), x[2] = fnma(c, v, x[2]), x[3] = fnma(d, v, x[3]);
      }
    }
    for (; l < width; l++) {
      R a = v0 * top[l];
      for (int r = 0; r < count; r++) a = fma(rows[r * width + j], rows[r * width + l], a);
      a *= scale;
      top[l] = fnma(a, v0, top[l]);
      for (int r = 0; r < count; r++) rows[r * width + l] = fnma(a, rows[r * width + j], rows[r * width + l]);
    }
  }
}

// Rows start … start + count − 1 of an (m, n) item for each lane, in lanes with `width` ≥ n numbers to a row, times scale[l];
// lanes beyond `lanes` repeat the first item.
template <class D, int W>
void load_rows(const D* const* items, std::int64_t start, int count, int n, int width, const double* scale,
               Lanes<double, W>* rows) {
  using R = Lanes<double, W>;
  const R factors = R::load(scale);
  for (int r = 0; r < count; r++) {
    const std::ptrdiff_t offset = (start + r) * n;
    R* to = rows + r * width;
    int i = 0;
    for (; i + W <= n; i += W) {
      R tile[W];
      for (int l = 0; l < W; l++) tile[l] = load_as<double, W>(items[l] + offset + i);
      transpose(tile);
      for (int k = 0; k < W; k++) to[i + k] = tile[k] * factors;
    }
    for (; i < n; i++) {
      R x;
      for (int l = 0; l < W; l++) x.set(l, double(items[l][offset + i]));
      to[i] = x * factors;
    }
  }
}

// Turns the columns of G (column by column, n × n) until they are orthogonal, and those of V with them; `squares` are their
// squared lengths. Returns where it did not come to an end.
template <class R>
typename R::mask jacobi(int n, R* G, R* V, R* squares) {
  using S = typename R::scalar;
  constexpr int most = 40;
  const R zero(0), one(1), tolerance(n * epsilon<S> * epsilon<S>), nothing(S(1e-200));  // columns that have vanished
  auto active = zero < one;
  for (int sweep = 0; sweep < most; sweep++) {
    for (int p = 0; p < n; p++) {
      R square = zero;
      for (int i = 0; i < n; i++) square = fma(G[p * n + i], G[p * n + i], square);
      squares[p] = square;
    }
    auto turned = zero > one;
    for (int p = 0; p < n - 1; p++)
      for (int q = p + 1; q < n; q++) {
        R *x = G + p * n, *y = G + q * n;
        R a = zero, b = zero;
        int i = 0;
        for (; i + 1 < n; i += 2) {
          a = fma(x[i], y[i], a);
          b = fma(x[i + 1], y[i + 1], b);
        }
        if (i < n) a = fma(x[i], y[i], a);
        const R zeta = a + b;
        const auto turn =
            (zeta * zeta > tolerance * squares[p] * squares[q]) & (min(squares[p], squares[q]) > nothing) & active;
        if (!any(turn)) continue;
        turned = turned | turn;
        const R tau = (squares[q] - squares[p]) / select(turn, zeta + zeta, one);
        const R t = select(turn, copysign(one, tau) / (abs(tau) + sqrt(fma(tau, tau, one))), zero);
        const R c = one / sqrt(fma(t, t, one)), s = c * t;
        squares[p] = max(fnma(t, zeta, squares[p]), zero);
        squares[q] = fma(t, zeta, squares[q]);
        for (i = 0; i < n; i++) {
          const R u = x[i], w = y[i];
          x[i] = fnma(s, w, c * u);
          y[i] = fma(s, u, c * w);
        }
        R *f = V + p * n, *g = V + q * n;
        for (i = 0; i < n; i++) {
          const R u = f[i], w = g[i];
          f[i] = fnma(s, w, c * u);
          g[i] = fma(s, u, c * w);
        }
      }
    active = turned;
    if (!any(active)) break;
  }
  for (int p = 0; p < n; p++) {
    R square = zero;
    for (int i = 0; i < n; i++) square = fma(G[p * n + i], G[p * n + i], square);
    squares[p] = square;
  }
  return active;
}

}  // namespace PMAF_ISA
}  // namespace pmaf
