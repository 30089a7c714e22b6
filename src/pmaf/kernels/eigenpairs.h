// Leading eigenpairs of a block of Hermitian matrices in lanes, with the eigenvalue that follows them.
//
// X = Q T Qᴴ; eigenvalues of T by Sturm counts, its eigenvectors z by twisted factorisations, u = Q z; then one step of
// Newton's method against X itself, with θ = uᴴXu and r = Xu − θu taken in double precision,
//
//     u ← u + (θI − X)⁺ r,
//
// kept where it lowers the residual that is measured again afterwards.
#pragma once

#include "block.h"
#include "calls.h"
#include "references.h"
#include "signs.h"

namespace pmaf {
namespace PMAF_ISA {

// The numbers 2·frac(iφ) − 1 + ½: generic, and never orthogonal to what matrices made by people have for eigenvectors.
PMAF_INLINE double generic(std::int64_t i) {
  const double x = static_cast<double>(i + 1) * 0.6180339887498949;
  return 2 * (x - static_cast<double>(static_cast<std::int64_t>(x))) - 0.5;
}

template <class B>
struct Forward : B {
  using B::B;
  using typename B::C;
  using typename B::D;
  using typename B::All;
  using typename B::RealRows;
  using typename B::S;
  using typename B::T;
  using typename B::V;
  using B::halves, B::stride, B::W, B::Wd, B::n, B::k, B::parts;

  // Eigenvalues this close to each other, in units of T, make their vectors unreliable one by one.
  static constexpr double crowded = 1e-3;

  RealRows z(int w) const { return {this->Z + std::ptrdiff_t(w) * n * W}; }

  // Vector w of T where it crowds with the ones before, from `start` on: inverse iteration, orthogonal to them.
  void crowd_vector(int w, All start, typename All::mask where) {
    const auto f = this->pivoted();
    const RealRows x{this->h};
    factorise(this->tridiagonal(), this->value(w), 0x1p-52, f);
    for (int i = 0; i < n; i++) x.set(i, All(generic(i + std::int64_t(7) * w)));
    for (int pass = 0; pass < 4; pass++) {
      for (int again = 0; again < 2; again++)
        for (int j = 0; j < w; j++) {
          const RealRows other = z(j);
          All inner(0.0);
          for (int i = 0; i < n; i++) inner = fma(x[i], other[i], inner);
          inner = select(All(double(j)) >= start, inner, All(0.0));
          for (int i = 0; i < n; i++) x.set(i, fnma(inner, other[i], x[i]));
        }
      All most(0.0), squares(0.0);
      for (int i = 0; i < n; i++) most = max(abs(x[i]), most);
      const All unit = All(1.0) / max(most, All(1e-280));
      for (int i = 0; i < n; i++) {
        const All y = x[i] * unit;
        squares = fma(y, y, squares);
      }
      const All length = unit / sqrt(max(squares, All(1e-280)));
      for (int i = 0; i < n; i++) x.set(i, x[i] * length);
      if (pass < 3) solve(n, f, x);
    }
    for (int i = 0; i < n; i++) z(w).set(i, select(where, x[i], z(w)[i]));
  }

  // Eigenvalues and eigenvectors of T, and u = Q z for all of them.
  void pairs_of_t() {
    const auto t = this->tridiagonal();
    constexpr double tolerance = sizeof(T) == 4 ? 1e-10 : 1e-15;
    const int wanted = k < n ? k + 1 : k;
    All other_end;
    eigenvalues(t, wanted, tolerance, RealRows{this->values}, other_end);
    (max(abs(this->value(0)), abs(other_end)) * All::load(this->unit)).store(this->norm);
    All start(0.0);
    const auto room = [&](int i) { return RealRows{this->scratch[i]}; };
    for (int w = 0; w < k; w++) {
      All lambda = this->value(w);
      for (int pass = 0; pass < (sizeof(T) == 8 ? 2 : 1); pass++)
        twisted_vector(t, lambda, z(w), room(0), room(1), room(2), room(3));
      if (w == 0) continue;
      const auto close = this->value(w - 1) - this->value(w) <= All(crowded);
      start = select(close, start, All(double(w)));
      if (any(close)) crowd_vector(w, start, close);
    }
    for (int w = 0; w < k; w++) {
      S* u = this->u(w);
      for (int half = 0; half < halves; half++)
        for (int i = 0; i < n; i++) {
          V::store(u + i, half, C(V::load_real(z(w).p + std::ptrdiff_t(i) * W, half)));
        }
      this->template apply<false>(u);
    }
  }

  // v, wide, orthogonal to the vectors before w and of unit length.
  void normalise(double* v, int w) {
    for (int half = 0; half < halves; half++) {
      for (int j = 0; j < w; j++) this->subtract(v, this->dot(this->u(j), v, half), this->u(j), half);
      const D length = D(1.0) / sqrt(max(this->squared_norm(v, half), D(1e-280)));
      for (int i = 0; i < n; i++) {
        double* p = v + std::ptrdiff_t(i) * stride;
        V::store(p, half, V::load(p, half) * length);
      }
    }
  }

  // For v in lanes: θ, and the norm of image = Xv − θv.
  void residual(const S* v, double* theta, double* size) {
    this->multiply(v, this->image);
    for (int half = 0; half < halves; half++) {
      const D t = real_part(this->dot(v, this->image, half)) / this->squared_norm(v, half);
      this->subtract(this->image, C(t), v, half);
      V::store_real(theta, half, t);
      V::store_real(size, half, sqrt(this->squared_norm(this->image, half)));
    }
  }

  // Polishes pair w; θ and the residual of what is kept, both of X, W numbers each.
  void polish(int w, double* theta, double* size, double* other_theta, double* other_size, const double* tolerance) {
    S* u = this->u(w);
    if (k > 1) {
      this->widen(u, this->y);
      normalise(this->y, w);
      this->narrow(this->y, u);
    }
    residual(u, theta, size);
    bool needed = false;
    const auto exact = [&](int half) { return D(epsilon<T> / 4) * V::load_real(this->norm, half); };
    for (int half = 0; half < halves; half++) needed |= any(V::load_real(size, half) > exact(half));
    if (!needed) return;
    this->factorise_for(w);
    this->solve_for(w, this->image, tolerance);
    S* better = this->work;
    for (int half = 0; half < halves; half++)
      for (int i = 0; i < n; i++) {
        const C sum = V::load(u + i, half) + V::load(this->image + std::ptrdiff_t(i) * stride, half);
        V::store(this->y + std::ptrdiff_t(i) * stride, half, sum);
      }
    normalise(this->y, w);
    this->narrow(this->y, better);
    residual(better, other_theta, other_size);
    for (int half = 0; half < halves; half++) {
      const D before = V::load_real(size, half);
      const auto lower = (V::load_real(other_size, half) < before) & (before > exact(half));
      V::store_real(size, half, select(lower, V::load_real(other_size, half), V::load_real(size, half)));
      V::store_real(theta, half, select(lower, V::load_real(other_theta, half), V::load_real(theta, half)));
      for (int i = 0; i < n; i++) V::store(u + i, half, select(lower, V::load(better + i, half), V::load(u + i, half)));
    }
  }

  // Turns vector w so that its inner product with the reference is real and not negative; where rounding of u (which is
  // `doubt`) decides that, the same with fixed numbers. Over the complex numbers that product is left in `phase`, of the
  // fixed numbers with a minus; 0 where neither decides.
  void turn(int w, const References<V>& reference, const double* doubt, double* phase) {
    S* u = this->u(w);
    for (int half = 0; half < halves; half++) {
      C inner(0.0), second(0.0);
      D squares(reference.first ? 0.0 : double(n));
      for (int i = 0; i < n; i++) {
        const C x = V::load(u + i, half);
        second = fma(x, D(deciding_number(i)), second);
        if (!reference.first) {
          inner = inner + x;
          continue;
        }
        const C r = reference.entry(i, w, half);
        squares = add_square(r, squares);
        inner = conj_fma(r, x, inner);
      }
      const D least = V::load_real(doubt, half) * sqrt(squares);
      const auto vague = ~(add_square(inner, D(0.0)) > least * least);
      const C chosen = select(vague, second, inner);
      if constexpr (S::is_complex) {
        const D length = sqrt(add_square(chosen, D(0.0)));
        const auto none = length == D(0.0);
        const C turn = select(none, C(1.0), conj(chosen) * (D(1.0) / select(none, D(1.0), length)));
        for (int i = 0; i < n; i++) V::store(u + i, half, V::load(u + i, half) * turn);
        V::store_real(phase, half, select(vague, -length, length));
      } else {
        const D turn = copysign(D(1.0), chosen);
        for (int i = 0; i < n; i++) V::store(u + i, half, V::load(u + i, half) * turn);
      }
    }
  }
};

// Residual and orthonormality, relative, that an answer must have.
template <class T>
constexpr double accepted = sizeof(T) == 4 ? 3e-6 : 1e-11;

// ε^¼: a vector that rounding leaves open by more is next to arbitrary, and so is its sign.
template <class T>
constexpr double most_doubt = sizeof(T) == 4 ? 0x1.306fe0a31b715p-6 : 0x1p-13;

// What a block needs beside its matrices.
template <class S>
struct Room {
  double *theta, *phase, *doubt, *worst, *spare[4];
  Room(std::int64_t k, Arena& arena) {
    constexpr int W = S::width;
    theta = arena.take<double>(k * W);
    phase = arena.take<double>(k * W);
    doubt = arena.take<double>(W);
    worst = arena.take<double>(W);
    for (double*& r : spare) r = arena.take<double>(W);
  }
};

template <class S>
std::size_t eigenpairs_memory(const EigenpairsCall& call) {
  Arena arena{nullptr};
  Block<S>(static_cast<int>(call.n), static_cast<int>(call.k), true, arena, true);
  Room<S>(call.k, arena);
  return arena.used;
}

// Items first … first + lanes − 1 of a call; the or of their codes.
template <class S>
int eigenpairs_block(const EigenpairsCall& call, std::int64_t first, int lanes, char* memory) {
  using T = typename S::scalar;
  using V = Wide<S>;
  using D = typename V::D;
  constexpr int W = V::W, parts = V::parts, halves = V::halves;
  const int n = static_cast<int>(call.n), k = static_cast<int>(call.k);
  Arena arena{memory};
  Forward<Block<S>> block(n, k, call.largest != 0, arena, true);
  const Room<S> room_for(k, arena);
  const References<V> reference(call.reference, call.reference_item, call.reference_columns, first, lanes);
  double *theta = room_for.theta, *doubt = room_for.doubt, *worst = room_for.worst;
  double* const* room = room_for.spare;

  const std::ptrdiff_t numbers = std::ptrdiff_t(n) * n * parts;
  block.factorise_matrices(static_cast<const T*>(call.X) + first * numbers,
                           static_cast<T*>(call.factor) + first * eigen_factor_size(n) * parts, lanes);
  block.scale_tridiagonal();
  block.pairs_of_t();

  // Selected values nearer than this to each other leave their common part of a correction alone.
  for (int half = 0; half < halves; half++) {
    V::store_real(room[0], half, V::load_real(block.norm, half) * D(64 * epsilon<T>));
    V::store_real(worst, half, D(0.0));
  }
  for (int w = 0; w < k; w++) {
    double* t = theta + std::ptrdiff_t(w) * W;
    block.polish(w, t, room[1], room[2], room[3], room[0]);
    for (int half = 0; half < halves; half++) {
      const D unit = V::load_real(block.unit, half), norm = V::load_real(block.norm, half), below = D(block.sign()) * unit;
      const D size = V::load_real(room[1], half);
      const D relative = select(norm > D(0.0), size / select(norm > D(0.0), norm, D(1.0)), size);
      const D known = V::load_real(worst, half);
      V::store_real(worst, half, select(relative <= known, known, relative));
      // u is known to ε‖X‖ over the distance to the nearest other eigenvalue, and where that is more than ε^¼ not at all;
      // the same as in pmaf.layers.gauge.
      const D here = V::load_real(t, half) / below;
      D gap(4.0);
      if (w > 0) gap = min(gap, abs(V::load_real(theta + std::ptrdiff_t(w - 1) * W, half) / below - here));
      if (w + 1 < k || k < n) gap = min(gap, abs(here - block.value(w + 1, half)));
      const D vague = fma(D(8 * epsilon<T>) + relative, norm / max(gap * unit, D(1e-300)), D(32 * epsilon<T>));
      V::store_real(doubt, half, min(vague, D(most_doubt<T>)));
    }
    for (int j = 0; j < w; j++)
      for (int half = 0; half < halves; half++) {
        const D inner = sqrt(add_square(block.dot(block.u(j), block.u(w), half), D(0.0))), known = V::load_real(worst, half);
        V::store_real(worst, half, select(inner <= known, known, inner));
      }
    block.turn(w, reference, doubt, room_for.phase + std::ptrdiff_t(w) * W);
  }

  int seen = 0;
  T* values = static_cast<T*>(call.values) + first * k;
  [[maybe_unused]] T* phase = call.phase ? static_cast<T*>(call.phase) + first * k : nullptr;
  T* vectors = static_cast<T*>(call.vectors) + first * n * k * parts;
  const T nan = static_cast<T>(__builtin_nan(""));
  for (int l = 0; l < lanes; l++) {
    const bool bad = block.not_finite[l] != T(0);
    const T up = block.scale_up[0][l], further = block.scale_up[1][l];
    const auto unscaled = [&](double x) { return bad ? nan : static_cast<T>(x) * up * further; };
    const double unit = block.unit[l] * block.sign(), norm = block.norm[l];
    int code = bad ? NOT_FINITE : FINE;
    const double allowed = 2 * call.allowed;
    if (!bad && static_cast<double>(block.skew[l]) > allowed * allowed * static_cast<double>(block.squares[l])) code |= ASYMMETRIC;
    if (!bad && !(worst[l] <= accepted<T>)) code |= INACCURATE;
    const double next = k < n ? block.values[std::ptrdiff_t(k) * W + l] * unit : __builtin_nan("");
    // The absolute tolerance is meant for values as they are handed over.
    const double absolute = call.atol > 0 ? call.atol / static_cast<double>(up) / static_cast<double>(further) : 0.0;
    const double tolerance = call.rtol * norm + absolute;
    for (int w = 0; w < k; w++) {
      const double value = theta[std::ptrdiff_t(w) * W + l];
      const double after = w + 1 < k ? theta[std::ptrdiff_t(w + 1) * W + l] : next;
      if (!bad && block.sign() * (value - after) <= tolerance) code |= REPEATED;
      values[std::ptrdiff_t(l) * k + w] = unscaled(value);
      if constexpr (S::is_complex)
        if (phase) phase[std::ptrdiff_t(l) * k + w] = static_cast<T>(room_for.phase[std::ptrdiff_t(w) * W + l]);
    }
    static_cast<T*>(call.next)[first + l] = unscaled(next);
    static_cast<T*>(call.norm)[first + l] = unscaled(norm);
    static_cast<T*>(call.residual)[first + l] = bad ? nan : static_cast<T>(worst[l]);
    call.code[first + l] = code;
    seen |= code;
    if (bad)
      for (std::ptrdiff_t i = 0; i < std::ptrdiff_t(n) * k * parts; i++) vectors[l * std::ptrdiff_t(n) * k * parts + i] = nan;
  }
  const std::ptrdiff_t item = std::ptrdiff_t(n) * k * parts;
  if (k == 1 && !(seen & NOT_FINITE)) {
    store_items<T, W>(reinterpret_cast<const T*>(block.U), item, vectors, item, lanes);
    return seen;
  }
  for (int l = 0; l < lanes; l++) {
    if (block.not_finite[l] != T(0)) continue;
    for (int w = 0; w < k; w++) {
      const T* u = reinterpret_cast<const T*>(block.u(w));
      for (int i = 0; i < n; i++)
        for (int q = 0; q < parts; q++)
          vectors[l * item + (std::ptrdiff_t(i) * k + w) * parts + q] = u[(std::ptrdiff_t(i) * parts + q) * W + l];
    }
  }
  return seen;
}

}  // namespace PMAF_ISA
}  // namespace pmaf
