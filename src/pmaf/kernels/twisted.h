// Eigenvectors of T and solves with λI − T in lanes, in double precision, O(n) each.
//
// Twisted factorisation (Dhillon, Parlett). Eliminating T − λI from the top to row r and from the bottom to row r leaves
//
//     q⁺ᵢ = dᵢ − λ − eᵢ₋₁²/q⁺ᵢ₋₁,   q⁻ᵢ = dᵢ − λ − eᵢ²/q⁻ᵢ₊₁,   γᵣ = q⁺ᵣ + q⁻ᵣ − (dᵣ − λ)
//
// and z with zᵣ = 1, zᵢ = −eᵢ zᵢ₊₁/q⁺ᵢ above, zᵢ₊₁ = −eᵢ zᵢ/q⁻ᵢ₊₁ below satisfies (T − λI) z = γᵣ eᵣ. The r of least
// |γᵣ| gives a residual |γᵣ|/‖z‖ of the size of the error of λ, which the Rayleigh quotient λ + γᵣ/‖z‖² removes.
//
// For the largest eigenvalue, μI − T with μ a little above it is definite: L D Lᵀ without pivoting is stable, and what
// comes along the eigenvector is projected out. Elsewhere in the spectrum Gaussian elimination exchanges rows.
#pragma once

#include "sturm.h"

namespace pmaf {
namespace PMAF_ISA {

template <class D>
PMAF_INLINE D away_from_zero(D q, double least) {
  return select(abs(q) < D(least), copysign(D(least), q), q);
}

// z of unit length for λ, which is replaced by the Rayleigh quotient of z. The others: n rows of scratch each.
template <class D, int stride>
void twisted_vector(const Tridiagonal<D, stride>& t, D& lambda, const Rows<D, stride>& z,
                    const Rows<D, stride>& down, const Rows<D, stride>& up, const Rows<D, stride>& lower,
                    const Rows<D, stride>& upper) {
  const int n = t.n;
  constexpr double least = 1e-100;
  D q = t.d[0] - lambda, p = t.d[n - 1] - lambda;
  for (int i = 0;; i++) {  // both eliminations side by side, with the factors −e/q
    const int j = n - 1 - i;
    down.set(i, q);
    up.set(j, p);
    if (i == n - 1) break;
    const D f = t.e[i], h = t.e[j - 1];
    const D l = -f / away_from_zero(q, least), u = -h / away_from_zero(p, least);
    lower.set(i, l);
    upper.set(j, u);
    q = fma(f, l, t.d[i + 1] - lambda);
    p = fma(h, u, t.d[j - 1] - lambda);
  }
  D best(1e300), r(0.0), gamma(0.0);
  for (int i = 0; i < n; i++) {
    const D g = down[i] + (up[i] - (t.d[i] - lambda));
    const auto better = abs(g) < best;
    best = select(better, abs(g), best);
    gamma = select(better, g, gamma);
    r = select(better, D(double(i)), r);
  }
  D above(0.0), squares(0.0);
  for (int i = n - 1; i >= 0; i--) {
    const D here(static_cast<double>(i));
    if (i < n - 1) above = lower[i] * above;
    const D x = select(here < r, above, select(here == r, D(1.0), D(0.0)));
    above = x;
    z.set(i, x);
    squares = fma(x, x, squares);
  }
  D below = z[0];
  for (int i = 1; i < n; i++) {
    const D next = upper[i] * below;
    const auto under = D(static_cast<double>(i)) > r;
    below = select(under, next, z[i]);
    z.set(i, below);
    squares = select(under, fma(below, below, squares), squares);
  }
  lambda += gamma / squares;
  const D length = D(1.0) / sqrt(squares);
  for (int i = 0; i < n; i++) z.set(i, z[i] * length);
}

// μI − T = L D Lᵀ for μ above the spectrum: 1/Dᵢ and the entries of L below the diagonal.
template <class D, int stride>
struct Definite {
  Rows<D, stride> inverse, l;
};

template <class D, int stride>
void factorise(const Tridiagonal<D, stride>& t, D mu, const Definite<D, stride>& f) {
  D pivot = mu - t.d[0];
  for (int i = 0;; i++) {
    const D inverse = D(1.0) / max(pivot, D(1e-18));
    f.inverse.set(i, inverse);
    if (i == t.n - 1) break;
    const D l = -t.e[i] * inverse;
    f.l.set(i, l);
    pivot = fma(t.e[i], l, mu - t.d[i + 1]);
  }
}

// y ← (μI − T)⁻¹ y. Rows of `y` may be real or imaginary parts.
template <class D, int stride, int y_stride>
void solve(int n, const Definite<D, stride>& f, const Rows<D, y_stride>& y) {
  D g = y[0];
  for (int i = 1; i < n; i++) y.set(i, g = fnma(f.l[i - 1], g, y[i]));
  g = g * f.inverse[n - 1];
  y.set(n - 1, g);
  for (int i = n - 2; i >= 0; i--) y.set(i, g = fnma(f.l[i], g, y[i] * f.inverse[i]));
}

// P (T − λI) = L R with rows exchanged: R has the diagonals a, b, c, L the multipliers m; `swap` is one where rows i and
// i + 1 changed places.
template <class D, int stride>
struct Pivoted {
  Rows<D, stride> a, b, c, m, swap;  // a holds inverses
};

// Pivots below `least` count as that: T is known no better.
template <class D, int stride>
void factorise(const Tridiagonal<D, stride>& t, D lambda, double least, const Pivoted<D, stride>& f) {
  const int n = t.n;
  D a = t.d[0] - lambda, b = n > 1 ? t.e[0] : D(0.0);
  for (int i = 0; i < n - 1; i++) {
    // Row i holds (a, b, 0), row i + 1 holds (e, d, e').
    const D e = t.e[i], d = t.d[i + 1] - lambda, following = i + 2 < n ? t.e[i + 1] : D(0.0);
    const auto exchange = abs(e) > abs(a);
    const D pivot = away_from_zero(select(exchange, e, a), least), inverse = D(1.0) / pivot;
    const D right = select(exchange, d, b), far = select(exchange, following, D(0.0));
    const D m = select(exchange, a, e) * inverse;
    f.a.set(i, inverse);
    f.b.set(i, right);
    f.c.set(i, far);
    f.m.set(i, m);
    f.swap.set(i, select(exchange, D(1.0), D(0.0)));
    a = fnma(m, right, select(exchange, b, d));
    b = fnma(m, far, select(exchange, D(0.0), following));
  }
  f.a.set(n - 1, D(1.0) / away_from_zero(a, least));
}

// y ← (T − λI)⁻¹ y
template <class D, int stride, int y_stride>
void solve(int n, const Pivoted<D, stride>& f, const Rows<D, y_stride>& y) {
  D here = y[0];
  for (int i = 0; i < n - 1; i++) {
    const D next = y[i + 1];
    const auto exchange = f.swap[i] > D(0.0);
    const D kept = select(exchange, next, here), other = select(exchange, here, next);
    y.set(i, kept);
    here = fnma(f.m[i], kept, other);
  }
  D one = here * f.a[n - 1], two(0.0);
  y.set(n - 1, one);
  for (int i = n - 2; i >= 0; i--) {
    const D x = fnma(f.c[i], two, fnma(f.b[i], one, y[i])) * f.a[i];
    y.set(i, x);
    two = one, one = x;
  }
}

}  // namespace PMAF_ISA
}  // namespace pmaf
