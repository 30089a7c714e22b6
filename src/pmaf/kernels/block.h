// A block of W items in lanes: their matrices, factors and selected eigenvectors, and the solve that forward and
// backward share,
//
//     y = (λᵢI − X)⁺ h = Q (λᵢI − T)⁺ Qᴴ h,
//
// where components along uᵢ and along selected vectors of (nearly) the same eigenvalue are left out.
//
// Inside a block a matrix is its Hermitian part times a power of two that brings its largest entry near one, and T is
// in units of its own in which its norm is at most one; with `largest=False` it is −T.
#pragma once

#include <cstring>
#include <type_traits>

#include "lanes.h"
#include "rows.h"
#include "rowwise.h"
#include "tridiagonal.h"
#include "twisted.h"
#include "wide.h"

namespace pmaf {
namespace PMAF_ISA {

// Hands out 64-byte aligned pieces of one allocation; with no memory behind it, counts what would be needed.
struct Arena {
  char* base;
  std::size_t used = 0;
  template <class A>
  A* take(std::ptrdiff_t count) {
    char* p = base ? base + used : nullptr;
    used += (static_cast<std::size_t>(count) * sizeof(A) + 63) / 64 * 64;
    return reinterpret_cast<A*>(p);
  }
};

template <class T>
constexpr double epsilon = sizeof(T) == 4 ? 0x1p-23 : 0x1p-52;

// From this size on one matrix at a time is faster than one in each lane.
template <class T>
constexpr int rows_from = 160;

// From this size on a matrix that has no others beside it is tridiagonalised by rows, which gives the same answer.
template <bool is_complex>
constexpr int single_from = is_complex ? 40 : 24;

template <class S_>
struct Block {
  using S = S_;
  using L = typename S::real;
  using T = typename S::scalar;
  using V = Wide<S>;
  using D = typename V::D;
  using C = typename V::C;
  static constexpr int W = V::W, Wd = V::Wd, halves = V::halves, parts = V::parts, stride = V::stride;
  using All = typename V::All;
  using RealRows = Rows<All, W>;
  using Part = Rows<All, stride>;  // real or imaginary parts of a wide array

  int n, k;
  bool largest;
  S *X, *A, *tau, *U, *vector, *work, *staging;  // X: the Hermitian part; A: the reflectors; packed lower triangles
  L *d, *e;
  double *td, *te, *tf;      // T in its own units: d, e, −e²
  double *values;            // k + 1, of T
  double *unit, *norm;       // what T was divided by, an upper estimate of the largest |eigenvalue| of X; both of X
  double *scratch[5];        // n each
  double *Z;                 // k × n, eigenvectors of T
  double *h, *y, *image, *wide;  // wide vectors
  double *inner;             // k, wide
  T *scale_up[2], *scale_down[2];  // two factors each, whose product is the power of two
  L not_finite, skew, squares;

  // Larger real matrices are worked on one at a time; then X and A stay where the caller has them.
  bool by_rows;
  const T* source = nullptr;  // the first item's matrix
  T* factor = nullptr;        // and its factor
  int items = 0;
  T *square, *row_work;
  double *left, *right;

  Block(int n_, int k_, bool largest_, Arena& arena, bool forward) : n(n_), k(k_), largest(largest_) {
    by_rows = !S::is_complex && n >= rows_from<T>;
    const std::ptrdiff_t pitch = ByRows<T>::pitch(n);
    X = arena.take<S>(by_rows ? 0 : triangle(n));
    A = arena.take<S>((by_rows ? 0 : triangle(n)) + n);
    tau = A + (by_rows ? 0 : triangle(n));
    square = arena.take<T>(forward && (by_rows || n >= single_from<S::is_complex>) ? n * pitch * parts : 0);
    row_work = arena.take<T>(by_rows || n >= single_from<S::is_complex> ? 4 * pitch * parts : 0);
    left = arena.take<double>(by_rows ? pitch : 0);
    right = arena.take<double>(by_rows ? pitch : 0);
    U = arena.take<S>(std::ptrdiff_t(n) * k);
    vector = arena.take<S>(n);
    work = arena.take<S>(2 * std::ptrdiff_t(n));
    staging = arena.take<S>(std::ptrdiff_t(n) * staged_rows());
    d = arena.take<L>(n);
    e = arena.take<L>(n);
    td = arena.take<double>(std::ptrdiff_t(n) * W);
    te = arena.take<double>(std::ptrdiff_t(n) * W);
    tf = arena.take<double>(std::ptrdiff_t(n) * W);
    values = arena.take<double>((k + 1) * std::ptrdiff_t(W));
    unit = arena.take<double>(W);
    norm = arena.take<double>(W);
    for (double*& s : scratch) s = arena.take<double>(std::ptrdiff_t(n) * W);
    Z = forward ? arena.take<double>(std::ptrdiff_t(n) * k * W) : nullptr;
    h = arena.take<double>(std::ptrdiff_t(n) * stride);
    y = arena.take<double>(std::ptrdiff_t(n) * stride);
    image = arena.take<double>(std::ptrdiff_t(n) * stride);
    wide = arena.take<double>(std::ptrdiff_t(n) * stride);
    inner = arena.take<double>(std::ptrdiff_t(k) * stride);
    for (int i = 0; i < 2; i++) scale_up[i] = arena.take<T>(W), scale_down[i] = arena.take<T>(W);
  }

  Tridiagonal<All, W> tridiagonal() const { return {n, {td}, {te}, {tf}}; }
  S* u(int i) const { return U + std::ptrdiff_t(i) * n; }
  // Matrices are turned from lanes into items row by row; small ones whose rows do not fill registers, all rows at once.
  static constexpr int staged_rows(int n) { return n <= 32 && n % W != 0 ? n : 1; }
  int staged_rows() const { return staged_rows(n); }
  double sign() const { return largest ? 1.0 : -1.0; }
  D value(int i, int half) const { return V::load_real(values + std::ptrdiff_t(i) * W, half); }
  All value(int i) const { return All::load(values + std::ptrdiff_t(i) * W); }

  // The powers of two that bring entries of size `most` near one.
  void find_scale(L most, typename L::mask bad) {
    constexpr T smallest = sizeof(T) == 4 ? T(0x1p-126) : T(0x1p-1022);
    const auto tiny = most < L(smallest);
    L power = exponent(select(tiny, most * L(T(0x1p64)), most)) - select(tiny, L(T(64)), L(T(0)));
    power = select(bad | (most == L(T(0))), L(T(0)), power);
    const L one = to_numbers<T, W>(to_integers(power) >> 1);
    const L two = power - one;
    power_of_two(one).store(scale_up[0]);
    power_of_two(two).store(scale_up[1]);
    power_of_two(-one).store(scale_down[0]);
    power_of_two(-two).store(scale_down[1]);
    not_finite = select(bad, L(T(1)), L(T(0)));
  }

  // Reads the matrices of the first pass, and tridiagonalises them.
  void factorise_matrices(const T* from, T* to, int lanes) {
    if (by_rows) return factorise_rows(from, to, lanes);
    load<true>(from, lanes);
    if (n >= single_from<S::is_complex> && lanes == 1) tridiagonalise_alone();
    else tridiagonalise(n, X, A, d, e, tau, work);
    store_factor(to, lanes);
  }

  // The first item; all lanes hold the same.
  void tridiagonalise_alone() {
    using Alone = Rowwise<T, S::is_complex>;
    using One = typename Alone::One;
    const auto spread = [](One a) {
      if constexpr (S::is_complex) return S(L(a.re[0]), L(a.im[0]));
      else return L(a[0]);
    };
    Alone alone(n, square, row_work);
    for (int k = 0; k < n; k++) {
      const S* x = X + column(n, k);
      for (int i = k; i < n; i++) {
        One entry;
        if constexpr (S::is_complex) entry = One(x[i].re[0], x[i].im[0]);
        else entry = x[i][0];
        alone.put(alone.row(k), i, entry);
        alone.put(alone.row(i), k, conj(entry));
      }
      for (std::ptrdiff_t i = n; i < alone.length; i++) alone.put(alone.row(k), i, One(T(0)));
    }
    alone.tridiagonalise([&](int j, T x) { d[j] = L(x); }, [&](int j, T off, One t) { e[j] = L(off), tau[j] = spread(t); },
                         [&](int j, int i, One x) { A[column(n, j) + i] = spread(x); });
  }

  // All of them by rows, one at a time: scale, finiteness and asymmetry as in `load`.
  void factorise_rows(const T* from, T* to, int lanes) {
    if constexpr (!S::is_complex) {
      look_at_rows(from, to, lanes);
      const std::ptrdiff_t count = std::ptrdiff_t(n) * n;
      for (int l = 0; l < lanes; l++) {
        const bool bad = not_finite[l] != T(0);
        T apart = T(0), size = T(0);
        if (bad)
          for (std::ptrdiff_t i = 0; i < n * ByRows<T>::pitch(n); i++) square[i] = T(0);
        else
          ByRows<T>::symmetrise(n, from + l * count, scale_down[0][l], scale_down[1][l], square, apart, size);
        skew.set(l, apart);
        squares.set(l, size);
        ByRows<T>::tridiagonalise(n, square, to + l * eigen_factor_size(n), row_work);
      }
      read_tridiagonal();
    }
  }

  // T from the factors of matrices that are worked on by rows.
  void read_tridiagonal() {
    for (int l = 0; l < W; l++) {
      const T* f = factor + (l < items ? l : 0) * eigen_factor_size(n);
      for (int i = 0; i < n; i++) {
        const T* below = f + column(n, i) + i;
        reinterpret_cast<T*>(d)[std::ptrdiff_t(i) * W + l] = below[0];
        if (i + 1 < n) reinterpret_cast<T*>(e)[std::ptrdiff_t(i) * W + l] = below[1];
      }
    }
  }

  // Where the matrices and factors are that are worked on by rows, and the scale of the former.
  void look_at_rows(const T* from, T* to, int lanes) {
    source = from, factor = to, items = lanes;
    scan_items(from, lanes);
    skew = squares = L(T(0));
  }

  // The scale of matrices, one after the other, and whether they are finite.
  void scan_items(const T* from, int lanes) {
    const std::ptrdiff_t numbers = std::ptrdiff_t(n) * n * parts;
    L most(T(0)), poison(T(0));
    for (int l = 0; l < W; l++) {
      T large = most[0], sick = poison[0];  // lanes beyond repeat the first
      if (l < lanes) ByRows<T>::scan(from + l * numbers, numbers, large, sick);
      most.set(l, large);
      poison.set(l, sick);
    }
    find_scale(most, ~(poison == L(T(0))));
  }

  // The matrices and factors of the second pass.
  void recall(const T* from, const T* factors, int lanes) {
    if (!by_rows) {
      if (sizeof(T) == 4) load<false>(from, lanes);
      else scan_items(from, lanes);  // in double precision nothing is multiplied by X
      load_factor(factors, lanes);
      return;
    }
    if constexpr (!S::is_complex) {
      look_at_rows(from, const_cast<T*>(factors), lanes);
      read_tridiagonal();
    }
  }

  // v ← Q v, or Qᴴ v.
  template <bool adjoint>
  void apply(S* v) {
    if (!by_rows) {
      if (adjoint) apply_q_adjoint(n, A, tau, v);
      else apply_q(n, A, tau, v);
      return;
    }
    if constexpr (!S::is_complex) {
      T* numbers = reinterpret_cast<T*>(v);
      for (int l = 0; l < items; l++) {
        for (std::ptrdiff_t i = n; i < ByRows<T>::pitch(n); i++) row_work[i] = T(0);  // NaN may have got there
        for (int i = 0; i < n; i++) row_work[i] = numbers[std::ptrdiff_t(i) * W + l];
        const T* f = factor + l * eigen_factor_size(n);
        if (adjoint) ByRows<T>::apply_q_adjoint(n, f, row_work);
        else ByRows<T>::apply_q(n, f, row_work);
        for (int i = 0; i < n; i++) numbers[std::ptrdiff_t(i) * W + l] = row_work[i];
      }
    }
  }

  // Reads W matrices; finds their scale, whether they are finite, and if `measured`, how far from Hermitian.
  template <bool measured>
  void load(const T* from, int lanes) {
    const std::ptrdiff_t numbers = std::ptrdiff_t(n) * n * parts;
    const int rows = staged_rows();
    if (rows == n) {
      load_items<T, W>(from, numbers, lanes, numbers, reinterpret_cast<T*>(staging));
      const L* entries = reinterpret_cast<const L*>(staging);
      L poison(T(0)), most(T(0));
      for (std::ptrdiff_t i = 0; i < numbers; i++) {
        poison = fma(entries[i], L(T(0)), poison);
        most = max(abs(entries[i]), most);
      }
      find_scale(most, ~(poison == L(T(0))));
    } else {
      scan_items(from, lanes);
    }
    const auto bad = not_finite > L(T(0));
    const L down = L::load(scale_down[0]), further = L::load(scale_down[1]);
    const auto scaled = [&](S x) {
      if constexpr (S::is_complex) return S(scaled_real(x.re, down, further, bad), scaled_real(x.im, down, further, bad));
      else return scaled_real(x, down, further, bad);
    };
    L apart(T(0)), size(T(0));
    const auto middle_of = [&](S a, S b) {
      const S middle = (a + b) * L(T(0.5));
      if (measured) apart = add_square(a - b, apart), size = add_square(middle, size);
      return middle;
    };
    for (int i = 0; i < n; i++) {  // entries right of the diagonal wait where their partners will be
      if (rows != n)
        load_items<T, W>(from + std::ptrdiff_t(i) * n * parts, numbers, lanes, std::ptrdiff_t(n) * parts,
                         reinterpret_cast<T*>(staging));
      const S* entry = staging + (rows == n ? std::ptrdiff_t(i) * n : 0);
      for (int j = 0; j < i; j++) {
        S& held = X[column(n, j) + i];
        held = middle_of(scaled(entry[j]), conj(held));
      }
      S* right = X + column(n, i);
      const S here = scaled(entry[i]);
      right[i] = middle_of(here, conj(here));
      for (int j = i + 1; j < n; j++) right[j] = scaled(entry[j]);
    }
    skew = apart, squares = size;
  }
  PMAF_INLINE static L scaled_real(L x, L one, L two, typename L::mask bad) { return select(bad, L(T(0)), x * one * two); }

  // The factor, item by item; see tridiagonal.h.
  void store_factor(T* to, int lanes) const {
    const std::ptrdiff_t numbers = eigen_factor_size(n) * parts, count = (triangle(n) + n) * parts;
    for (int j = 0; j < n; j++) {
      S* below = A + column(n, j);
      below[j] = S(d[j]);
      if (j + 1 < n) below[j + 1] = S(e[j]);
    }
    tau[n - 1] = S(T(0));
    store_items<T, W>(reinterpret_cast<const T*>(A), count, to, numbers, lanes);
    for (int l = 0; l < lanes; l++) std::memset(to + l * numbers + count, 0, (numbers - count) * sizeof(T));
  }

  void load_factor(const T* from, int lanes) {
    load_items<T, W>(from, eigen_factor_size(n) * parts, lanes, (triangle(n) + n) * parts, reinterpret_cast<T*>(A));
    for (int j = 0; j < n; j++) {
      const S* below = A + column(n, j);
      d[j] = real_part(below[j]);
      if (j + 1 < n) e[j] = real_part(below[j + 1]);
    }
  }

  // T in units of its own, from d and e.
  void scale_tridiagonal() {
    for (int half = 0; half < halves; half++) {
      const auto get = [&](const L* p) { return load_as<double, Wd>(reinterpret_cast<const T*>(p) + half * Wd); };
      D bound(0.0);
      for (int i = 0; i < n; i++) {
        D radius = abs(get(d + i));
        if (i > 0) radius += abs(get(e + i - 1));
        if (i < n - 1) radius += abs(get(e + i));
        bound = max(bound, radius);
      }
      const auto zero = bound == D(0.0);
      const D power = select(zero, D(0.0), exponent(bound) + D(1.0));
      V::store_real(unit, half, power_of_two(power));
      const D down = power_of_two(-power) * D(sign());
      for (int i = 0; i < n; i++) {
        const auto set = [&](double* p, D x) { V::store_real(p + std::ptrdiff_t(i) * W, half, x); };
        set(td, get(d + i) * down);
        if (i == n - 1) continue;
        const D off = get(e + i) * down;
        set(te, off);
        set(tf, min(D(-1e-40), -(off * off)));
      }
    }
  }

  // Lanes are indexed by rows, wide arrays by numbers.
  template <class F>
  static constexpr int step = std::is_same_v<F, double> ? stride : 1;

  // to = X v
  template <class F>
  void multiply(const F* v, double* to) const {
    if (by_rows) return multiply_rows(v, to);
    const double* x;
    if constexpr (std::is_same_v<F, double>) x = v;
    else widen(v, wide), x = wide;
    for (int half = 0; half < halves; half++) {
      for (int i = 0; i < n; i++) V::store(to + std::ptrdiff_t(i) * stride, half, C(0.0));
      constexpr int columns = S::is_complex ? 2 : 4;
      int k = 0;
      for (; k + columns <= n; k += columns) multiply_columns<columns>(k, x, to, half);
      for (; k < n; k++) multiply_columns<1>(k, x, to, half);
    }
  }

  // What columns k … k + R − 1 of the lower triangle, and rows of the upper one, add to X x.
  template <int R>
  PMAF_INLINE void multiply_columns(int k, const double* x, double* to, int half) const {
    const S* a[R];
    C own[R], sums[R];
    for (int r = 0; r < R; r++) {
      a[r] = X + column(n, k + r);
      own[r] = V::load(x + std::ptrdiff_t(k + r) * stride, half);
      sums[r] = V::load(to + std::ptrdiff_t(k + r) * stride, half);
    }
    for (int r = 0; r < R; r++) {
      sums[r] = fma(own[r], real_part(V::load(a[r] + k + r, half)), sums[r]);
      for (int c = 0; c < r; c++) {
        const C entry = V::load(a[c] + k + r, half);
        sums[r] = fma(entry, own[c], sums[r]);
        sums[c] = conj_fma(entry, own[r], sums[c]);
      }
    }
    for (int i = k + R; i < n; i++) {
      double* p = to + std::ptrdiff_t(i) * stride;
      const C xi = V::load(x + std::ptrdiff_t(i) * stride, half);
      C total = V::load(p, half);
      for (int r = 0; r < R; r++) {
        const C entry = V::load(a[r] + i, half);
        sums[r] = conj_fma(entry, xi, sums[r]);
        total = fma(entry, own[r], total);
      }
      V::store(p, half, total);
    }
    for (int r = 0; r < R; r++) V::store(to + std::ptrdiff_t(k + r) * stride, half, sums[r]);
  }

  template <class F>
  void multiply_rows(const F* v, double* to) const {
    if constexpr (!S::is_complex) {
      for (std::ptrdiff_t i = 0; i < std::ptrdiff_t(n) * W; i++) to[i] = 0;
      using N = std::conditional_t<std::is_same_v<F, double>, double, T>;
      const N* numbers = reinterpret_cast<const N*>(v);
      for (int l = 0; l < items; l++) {
        if (not_finite[l] != T(0)) continue;
        for (int i = 0; i < n; i++) left[i] = static_cast<double>(numbers[std::ptrdiff_t(i) * W + l]);
        ByRows<T>::multiply(n, source + l * std::ptrdiff_t(n) * n, static_cast<double>(scale_down[0][l]),
                            static_cast<double>(scale_down[1][l]), left, right);
        for (int i = 0; i < n; i++) to[std::ptrdiff_t(i) * W + l] = right[i];
      }
    }
  }

  // Σ conj(a) b over the rows.
  template <class FA, class FB>
  C dot(const FA* a, const FB* b, int half) const {
    return sum_of<C>(0, n, [&](int i, C sum) {
      return conj_fma(V::load(a + std::ptrdiff_t(i) * step<FA>, half), V::load(b + std::ptrdiff_t(i) * step<FB>, half), sum);
    });
  }
  template <class F>
  D squared_norm(const F* a, int half) const {
    return sum_of<D>(0, n, [&](int i, D sum) { return add_square(V::load(a + std::ptrdiff_t(i) * step<F>, half), sum); });
  }
  // to ← to − s·u
  void subtract(double* to, C s, const S* v, int half) const {
    for (int i = 0; i < n; i++) {
      double* p = to + std::ptrdiff_t(i) * stride;
      V::store(p, half, fnma(s, V::load(v + i, half), V::load(p, half)));
    }
  }

  void narrow(const double* from, S* to) const {
    for (int half = 0; half < halves; half++)
      for (int i = 0; i < n; i++) V::store(to + i, half, V::load(from + std::ptrdiff_t(i) * stride, half));
  }
  void widen(const S* from, double* to) const {
    for (int half = 0; half < halves; half++)
      for (int i = 0; i < n; i++) V::store(to + std::ptrdiff_t(i) * stride, half, V::load(from + i, half));
  }

  // Where to factorise for pair i: beside λᵢ, so that what rounding leaves along selected vectors grows by no more than
  // 1/ε, and above it unless another selected value is there.
  All beside(int i) const {
    constexpr double shift = 8 * epsilon<T>;
    const All lambda = value(i);
    All best = lambda + All(shift);
    if (i == 0) return best;
    All room(0.0);
    for (const double candidate : {shift, -shift, 3 * shift, -3 * shift}) {
      const All mu = lambda + All(candidate);
      All nearest(shift / 2);
      for (int j = 0; j < k; j++) nearest = min(abs(mu - value(j)), nearest);
      const auto better = nearest > room;
      best = select(better, mu, best);
      room = select(better, nearest, room);
    }
    return best;
  }

  // Factors μI − T or T − μI for the solves with pair i.
  void factorise_for(int i) {
    if (i == 0) factorise(tridiagonal(), beside(i), definite());
    else factorise(tridiagonal(), beside(i), epsilon<T>, pivoted());
  }
  Definite<All, W> definite() const { return {{scratch[0]}, {scratch[1]}}; }
  Pivoted<All, W> pivoted() const { return {{scratch[0]}, {scratch[1]}, {scratch[2]}, {scratch[3]}, {scratch[4]}}; }

  // v ← (λᵢI − X)⁺ v, a wide vector, after factorise_for(i). Differences of selected values up to `tolerance` (of X,
  // one real number for each lane) count as zero.
  void solve_for(int i, double* v, const double* tolerance) {
    for (int half = 0; half < halves; half++)
      for (int j = 0; j < k; j++) {
        const C c = dot(u(j), v, half);
        subtract(v, c, u(j), half);
        V::store(inner + std::ptrdiff_t(j) * stride, half, c);
      }
    narrow(v, vector);
    apply<true>(vector);
    widen(vector, v);
    for (int which = 0; which < parts; which++) {
      const Part p{v + which * W};
      if (i == 0) solve(n, definite(), p);
      else solve(n, pivoted(), p);
    }
    for (int half = 0; half < halves; half++) {
      // Definite: (μ − T)⁻¹; pivoted: (T − λ)⁻¹. Both in units of T, and T may stand for −T.
      const D factor = D(i == 0 ? sign() : -sign()) / V::load_real(unit, half);
      for (int r = 0; r < n; r++) {
        double* p = v + std::ptrdiff_t(r) * stride;
        V::store(p, half, V::load(p, half) * factor);
      }
    }
    narrow(v, vector);
    apply<false>(vector);
    widen(vector, v);
    for (int half = 0; half < halves; half++) {
      const D factor = D(sign()) * V::load_real(unit, half), least = V::load_real(tolerance, half);
      for (int j = 0; j < k; j++) {
        C c = dot(u(j), v, half);
        if (j != i) {
          const D difference = (value(i, half) - value(j, half)) * factor;
          const auto apart = abs(difference) > least;
          const D inverse = select(apart, D(1.0) / select(apart, difference, D(1.0)), D(0.0));
          c = c - V::load(inner + std::ptrdiff_t(j) * stride, half) * inverse;
        }
        subtract(v, c, u(j), half);
      }
    }
  }
};

}  // namespace PMAF_ISA
}  // namespace pmaf
