// The leading eigenpair of real 3×3 and 4×4 matrices in single precision, and its gradient, in closed form and in double
// precision: everything stays in registers, and no factorisation is kept.
//
// B = X − (tr X/n) I. The largest root of its characteristic polynomial is λ, and with the cofactors
//
//     adj(λI − B) = Π_j (λ − λ_j) u uᵀ
//
// the column with the largest diagonal entry gives u. For n = 3, B has the eigenvalues 2s cos(θ/3 + 2πi/3) with
// s² = ‖B‖²/6 and cos θ = det B/(2s³); for n = 4, Laguerre's steps from above find λ, and what is left is a cubic.
// Squaring and cubing cost digits where eigenvalues crowd: an item takes this way only where its gap is a thousandth of
// its spread, and its residual, its symmetry and the sign of u leave no doubt. The rest of them take the general way.
//
// Backward, w = (λI − X)⁺ h solves (λI − X + ‖X‖ u uᵀ) w = h − u (uᵀh), which is definite.
#pragma once

#include "batch.h"
#include "eigen_gradient.h"
#include "eigenpairs.h"

namespace pmaf {
namespace PMAF_ISA {

// Whether the closed form is for this.
template <class Call>
bool is_small(const Call& call) {
  return call.type == FLOAT32 && call.k == 1 && (call.n == 3 || call.n == 4);
}
inline bool is_small(const EigenpairsCall& call) { return is_small<EigenpairsCall>(call) && !call.reference; }

// W symmetric N×N matrices: lower triangles, row by row.
template <int N, int W>
struct Small {
  using D = Lanes<double, W>;
  static constexpr int entries = N * (N + 1) / 2;
  D a[entries];

  PMAF_INLINE D& at(int i, int j) { return a[i >= j ? triangle(i) + j : triangle(j) + i]; }
  PMAF_INLINE const D& at(int i, int j) const { return a[i >= j ? triangle(i) + j : triangle(j) + i]; }

  // Reads the symmetric parts; Σ|X − Xᵀ|² and Σ|X|² over the lower triangle.
  PMAF_INLINE void load(const float* from, int lanes, D& skew, D& squares) {
    alignas(64) float entry[N * N * W];
    load_items<float, W>(from, N * N, lanes, N * N, entry);
    skew = squares = D(0.0);
#pragma GCC unroll 4
    for (int i = 0; i < N; i++)
#pragma GCC unroll 4
      for (int j = 0; j <= i; j++) {
        const D x = load_as<double, W>(entry + (i * N + j) * W), y = load_as<double, W>(entry + (j * N + i) * W);
        const D middle = (x + y) * D(0.5);
        skew = fma(x - y, x - y, skew);
        squares = fma(middle, middle, squares);
        at(i, j) = middle;
      }
  }

  PMAF_INLINE D trace() const {
    D sum = at(0, 0);
#pragma GCC unroll 4
    for (int i = 1; i < N; i++) sum += at(i, i);
    return sum;
  }

  // μI − X, or X − μI
  PMAF_INLINE Small shifted(D mu, double sign) const {
    Small r;
#pragma GCC unroll 10
    for (int i = 0; i < entries; i++) r.a[i] = a[i] * D(sign);
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) r.at(i, i) -= mu * D(sign);
    return r;
  }

  PMAF_INLINE void multiply(const D* v, D* to) const {
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) {
      to[i] = at(i, 0) * v[0];
#pragma GCC unroll 4
      for (int j = 1; j < N; j++) to[i] = fma(at(i, j), v[j], to[i]);
    }
  }

  PMAF_INLINE Small adjugate() const {
    Small r;
    const auto minor = [&](int i, int j, int k, int l) { return fnma(at(i, l), at(j, k), at(i, k) * at(j, l)); };
    if constexpr (N == 3) {
      r.at(0, 0) = minor(1, 2, 1, 2);
      r.at(1, 0) = minor(1, 2, 2, 0);
      r.at(2, 0) = minor(1, 2, 0, 1);
      r.at(1, 1) = minor(2, 0, 2, 0);
      r.at(2, 1) = minor(2, 0, 0, 1);
      r.at(2, 2) = minor(0, 1, 0, 1);
    } else {
      // Cofactors from the 2×2 minors of the upper and of the lower pair of rows.
      const D s0 = minor(0, 1, 0, 1), s1 = minor(0, 1, 0, 2), s2 = minor(0, 1, 0, 3), s3 = minor(0, 1, 1, 2);
      const D s4 = minor(0, 1, 1, 3), s5 = minor(0, 1, 2, 3);
      const D c5 = minor(2, 3, 2, 3), c4 = minor(2, 3, 1, 3), c3 = minor(2, 3, 1, 2), c2 = minor(2, 3, 0, 3);
      const D c1 = minor(2, 3, 0, 2);
      const auto three = [](D p, D x, D q, D y, D r3, D z) { return fma(r3, z, fnma(q, y, p * x)); };
      r.at(0, 0) = three(at(1, 1), c5, at(1, 2), c4, at(1, 3), c3);
      r.at(1, 0) = -three(at(1, 0), c5, at(1, 2), c2, at(1, 3), c1);
      r.at(1, 1) = three(at(0, 0), c5, at(0, 2), c2, at(0, 3), c1);
      r.at(2, 0) = three(at(3, 1), s5, at(3, 2), s4, at(3, 3), s3);
      r.at(2, 1) = -three(at(3, 0), s5, at(3, 2), s2, at(3, 3), s1);
      r.at(2, 2) = three(at(3, 0), s4, at(3, 1), s2, at(3, 3), s0);
      r.at(3, 0) = -three(at(2, 1), s5, at(2, 2), s4, at(2, 3), s3);
      r.at(3, 1) = three(at(2, 0), s5, at(2, 2), s2, at(2, 3), s1);
      r.at(3, 2) = -three(at(2, 0), s4, at(2, 1), s2, at(2, 3), s0);
      r.at(3, 3) = three(at(2, 0), s3, at(2, 1), s1, at(2, 2), s0);
    }
    return r;
  }
};

template <int N, class D>
PMAF_INLINE D small_dot(const D* a, const D* b) {
  D sum = a[0] * b[0];
#pragma GCC unroll 4
  for (int i = 1; i < N; i++) sum = fma(a[i], b[i], sum);
  return sum;
}

// The roots of z³ = 3 s² z + 2 g, all real, in descending order: z = 2 s c with 4c³ − 3c = g/s³ = cos θ. With
// h = cos(θ/2), c = cos(θ/3) = cos(⅔ arccos h) is analytic for h > −1; a polynomial is within 2e-8 of it on [0, 1], and
// one step of Newton's method does the rest.
template <class D>
PMAF_INLINE void cubic_roots(D s2, D g, D* z) {
  const D s = sqrt(max(s2, D(0.0)));
  const D r = min(max(g / max(s * s * s, D(1e-290)), D(-1.0)), D(1.0));
  const D h = sqrt(fma(r, D(0.5), D(0.5)));
  D c(0.001127636238);
  for (const double coefficient : {-0.006089345678, 0.01604728037, -0.03023539757, 0.05284140914, -0.1110385112, 0.5773469174, 0.500000026}) c = fma(c, h, D(coefficient));
  const D slope = fma(D(12.0) * c, c, D(-3.0));
  const D misfit = fma(fma(D(4.0) * c, c, D(-3.0)), c, -r);
  c -= misfit / max(slope, D(1e-8));
  const D opposite = D(0.8660254037844386) * sqrt(max(fnma(c, c, D(1.0)), D(0.0)));
  const D scale = s + s;
  z[0] = scale * c;
  z[1] = scale * fma(D(-0.5), c, opposite);
  z[2] = scale * fma(D(-0.5), c, -opposite);
}

// The largest, the second and the smallest eigenvalue of B with trace zero, and where they are known well.
template <int N, int W>
PMAF_INLINE Mask<double, W> small_eigenvalues(const Small<N, W>& b, Lanes<double, W>& first, Lanes<double, W>& second,
                                              Lanes<double, W>& last) {
  using D = Lanes<double, W>;
  const auto cofactors = b.adjugate();
  D squares(0.0), determinant = b.at(0, 0) * cofactors.at(0, 0), z[3];
#pragma GCC unroll 4
  for (int i = 0; i < N; i++) {
    squares = fma(b.at(i, i), b.at(i, i), squares);
#pragma GCC unroll 4
    for (int j = 0; j < i; j++) squares = fma(b.at(i, j) + b.at(i, j), b.at(i, j), squares);
  }
#pragma GCC unroll 4
  for (int i = 1; i < N; i++) determinant = fma(b.at(i, 0), cofactors.at(i, 0), determinant);
  auto known = squares > D(0.0);
  if constexpr (N == 3) {
    cubic_roots(squares * D(1.0 / 6), determinant * D(0.5), z);
    first = z[0], second = z[1];
  } else {
    // p = y⁴ + e₂y² − e₃y + e₄, from the bound that the variance gives downwards.
    const D e2 = squares * D(-0.5), e3 = cofactors.trace(), start = sqrt(squares * D(0.75));
    D y = start;
    auto done = ~known;
    for (int pass = 0; pass < 7; pass++) {
      const D y2 = y * y;
      const D p = fma(fma(y, y, e2), y2, fnma(e3, y, determinant));
      const D dp = fma(fma(D(4.0), y2, e2 + e2), y, -e3), ddp = fma(D(12.0), y2, e2 + e2);
      const D root = sqrt(max(D(3.0) * fnma(D(4.0) * p, ddp, D(3.0) * dp * dp), D(0.0)));
      const D step = D(4.0) * p / max(dp + root, D(1e-290));
      y = select(done, y, y - step);
      done = done | (abs(step) <= D(1e-6) * start);
      if (all(done)) break;
    }
    known = known & done;
    first = y;
    const D b1 = fma(y, y, e2), b0 = fma(y, b1, -e3);  // y³ + first·y² + b₁y + b₀ is left
    const D third = y * D(1.0 / 3);
    cubic_roots(fma(third, third, b1 * D(-1.0 / 3)), fma(fnma(third, third, b1 * D(0.5)), third, b0 * D(-0.5)), z);
    second = z[0] - third, last = z[2] - third;
  }
  if constexpr (N == 3) last = z[2];
  return known & (first - second >= D(1e-3) * (first - last));
}

// The same call for items from `first` on.
template <int N>
EigenpairsCall from_item(EigenpairsCall call, std::int64_t first, float* factor) {
  call.X = static_cast<const float*>(call.X) + first * N * N;
  call.values = static_cast<float*>(call.values) + first;
  call.vectors = static_cast<float*>(call.vectors) + first * N;
  call.next = static_cast<float*>(call.next) + first;
  call.norm = static_cast<float*>(call.norm) + first;
  call.residual = static_cast<float*>(call.residual) + first;
  call.code += first;
  call.factor = factor;
  return call;
}

template <int N>
int small_eigenpairs_block(const EigenpairsCall& call, std::int64_t item, int lanes) {
  constexpr int W = full_width<double>;
  using D = Lanes<double, W>;
  const double sign = call.largest ? 1.0 : -1.0;
  Small<N, W> X;
  D skew, squares;
  X.load(static_cast<const float*>(call.X) + item * N * N, lanes, skew, squares);
  const auto asymmetric = D(4 * call.allowed * call.allowed) * squares;
  const D mean = X.trace() * D(1.0 / N);
  const auto b = X.shifted(mean, sign);
  D first, second, last;
  auto good = small_eigenvalues(b, first, second, last) & (skew <= asymmetric);
  const D gap = first - second, top = fma(mean, D(sign), first), next = fma(mean, D(sign), second);
  const D norm = max(abs(top), abs(fma(mean, D(sign), last)));
  good = good & (gap > D(1e-6) * norm) & (gap > fma(D(call.rtol), norm, D(call.atol)));

  const auto cofactors = b.shifted(first, -1.0).adjugate();
  D most = cofactors.at(0, 0), u[N], image[N];
#pragma GCC unroll 4
  for (int i = 0; i < N; i++) u[i] = cofactors.at(i, 0);
#pragma GCC unroll 4
  for (int j = 1; j < N; j++) {
    const auto better = cofactors.at(j, j) > most;
    most = select(better, cofactors.at(j, j), most);
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) u[i] = select(better, cofactors.at(i, j), u[i]);
  }
  D sum = u[0];
#pragma GCC unroll 4
  for (int i = 1; i < N; i++) sum += u[i];
  const D length = copysign(D(1.0) / sqrt(small_dot<N>(u, u)), sum);
  // As they are handed over, and measured like that.
  Lanes<float, W> rounded[N];
#pragma GCC unroll 4
  for (int i = 0; i < N; i++) rounded[i] = convert<float>(u[i] * length), u[i] = convert<double>(rounded[i]);
  X.multiply(u, image);
  const D theta = small_dot<N>(u, image) / small_dot<N>(u, u);
#pragma GCC unroll 4
  for (int i = 0; i < N; i++) image[i] = fnma(theta, u[i], image[i]);
  const D residual = sqrt(small_dot<N>(image, image)) / norm;
  constexpr double eps = epsilon<float>, root_n = N == 3 ? 1.7320508075688772 : 2.0;
  good = good & (residual <= D(2 * eps)) & (abs(sum * length) * gap > D(32 * eps * root_n) * (norm + gap));

  int seen = 0;
  const bool general = !all(good);
  if (general) {
    float factor[eigen_factor_size(N) * W];
    const EigenpairsCall rest = from_item<N>(call, item, factor);
    using S = Lanes<float, W < least_width<float> ? least_width<float> : W>;
    char* memory = workspace(eigenpairs_memory<S>(rest));
    if (!memory) return NO_MEMORY;
    eigenpairs_block<S>(rest, 0, lanes, memory);
  }
  float *values = static_cast<float*>(call.values) + item, *following = static_cast<float*>(call.next) + item;
  float *norms = static_cast<float*>(call.norm) + item, *residuals = static_cast<float*>(call.residual) + item;
  float* vectors = static_cast<float*>(call.vectors) + item * N;
  std::int32_t* code = call.code + item;
  const auto value_f = convert<float>(theta), next_f = convert<float>(next * D(sign)), norm_f = convert<float>(norm);
  const auto residual_f = convert<float>(residual);
  alignas(64) float columns[N * W];
#pragma GCC unroll 4
  for (int i = 0; i < N; i++) rounded[i].store(columns + i * W);
  if (!general && lanes == W) {
    value_f.store(values);
    next_f.store(following);
    norm_f.store(norms);
    residual_f.store(residuals);
    for (int l = 0; l < W; l++) code[l] = FINE;
    store_items<float, W>(columns, N, vectors, N, W);
    return FINE;
  }
  for (int l = 0; l < lanes; l++) {
    if (!good[l]) {
      seen |= code[l];
      continue;
    }
    values[l] = value_f[l], following[l] = next_f[l], norms[l] = norm_f[l], residuals[l] = residual_f[l], code[l] = FINE;
    for (int i = 0; i < N; i++) vectors[l * N + i] = columns[i * W + l];
  }
  return seen;
}

template <int N>
int small_gradient_block(const EigenGradientCall& call, std::int64_t item, int lanes) {
  constexpr int W = full_width<double>;
  using D = Lanes<double, W>;
  const auto wide = [](const float* p) { return load_as<double, W>(p); };
  const auto each = [&](const void* p) {
    const float* number = static_cast<const float*>(p) + item;
    return lanes == W ? wide(number) : convert<double>(gather<float, W>(number, 1, lanes));
  };
  alignas(64) float columns[N * W];
  D u[N], w[N], image[N];
  load_items<float, W>(static_cast<const float*>(call.vectors) + item * N, N, lanes, N, columns);
#pragma GCC unroll 4
  for (int i = 0; i < N; i++) u[i] = wide(columns + i * W), w[i] = D(0.0);

  int codes[W], seen = 0;
  D answered;
  for (int l = 0; l < W; l++) codes[l] = call.code[item + (l < lanes ? l : 0)] & (NOT_FINITE | ASYMMETRIC);
  if (call.H) {
    const double sign = call.largest ? 1.0 : -1.0;
    const D norm = each(call.norm), apart = D(sign) * (each(call.values) - each(call.next));
    const auto close = apart <= fma(D(call.rtol), norm, D(call.atol));
    if (any(close))
      for (int l = 0; l < W; l++) codes[l] |= codes[l] == 0 && close[l] ? NEEDS_BASIS : 0;

    Small<N, W> X;
    D skew, squares;
    X.load(static_cast<const float*>(call.X) + item * N * N, lanes, skew, squares);
    load_items<float, W>(static_cast<const float*>(call.H) + item * N, N, lanes, N, columns);
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) w[i] = wide(columns + i * W);
    X.multiply(u, image);
    const D inverse = D(1.0) / small_dot<N>(u, u), theta = small_dot<N>(u, image) * inverse;
    auto m = X.shifted(theta, -sign);  // definite: positive for the largest, and sign gives it back
    D pivot[N];
    const D along = small_dot<N>(u, w) * inverse;
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) {
      w[i] = fnma(along, u[i], w[i]);
#pragma GCC unroll 4
      for (int j = 0; j <= i; j++) m.at(i, j) = fma(norm * u[i], u[j], m.at(i, j));
    }
    // m = L D Lᵀ
    const D least = norm * D(1e-15);
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) {
      pivot[j] = D(1.0) / max(max(m.at(j, j), least), D(1e-300));
#pragma GCC unroll 4
      for (int i = j + 1; i < N; i++) {
        const D l = m.at(i, j) * pivot[j];
#pragma GCC unroll 4
        for (int k = j + 1; k <= i; k++) m.at(i, k) = fnma(l, m.at(k, j), m.at(i, k));
        w[i] = fnma(l, w[j], w[i]);
      }
    }
#pragma GCC unroll 4
    for (int j = N - 1; j >= 0; j--) {
      D right = w[j];
#pragma GCC unroll 4
      for (int i = j + 1; i < N; i++) right = fnma(m.at(i, j), w[i], right);
      w[j] = right * pivot[j];
    }
    const D rest = small_dot<N>(u, w) * inverse;
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) w[i] = fnma(rest, u[i], w[i]) * D(sign);
  }
  for (int l = 0; l < W; l++) {
    answered.set(l, codes[l] == 0 ? 1.0 : 0.0);
    seen |= codes[l];
  }
  const auto fine = answered > D(0.0);
#pragma GCC unroll 4
  for (int i = 0; i < N; i++) {
    w[i] = select(fine, w[i], D(0.0));
    convert<float>(w[i]).store(columns + i * W);
  }
  if (call.W && call.H) store_items<float, W>(columns, N, static_cast<float*>(call.W) + item * N, N, lanes);
  if (call.gradient) {
    const D factor = call.values_cotangent ? each(call.values_cotangent) * D(0.5) : D(0.0);
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) w[i] = fma(w[i], D(0.5), factor * u[i]);
    alignas(64) float entry[N * N * W];
#pragma GCC unroll 4
    for (int i = 0; i < N; i++)
#pragma GCC unroll 4
      for (int j = 0; j <= i; j++) {
        const auto x = convert<float>(select(fine, fma(w[i], u[j], u[i] * w[j]), D(0.0)));
        x.store(entry + (i * N + j) * W);
        x.store(entry + (j * N + i) * W);
      }
    store_items<float, W>(entry, N * N, static_cast<float*>(call.gradient) + item * N * N, N * N, lanes);
  }
  if (call.gradient_code)
    for (int l = 0; l < lanes; l++) call.gradient_code[item + l] = codes[l];
  return seen;
}

// The whole batch, a few blocks at a time.
template <class Call, class Block>
int run_small(const Call& call, double work, Block block) {
  constexpr std::int64_t W = full_width<double>, chunk = 8 * W;
  auto run = [&](std::int64_t b, int) {
    const std::int64_t end = call.batch < (b + 1) * chunk ? call.batch : (b + 1) * chunk;
    int seen = 0;
    for (std::int64_t i = b * chunk; i < end; i += W) seen |= block(i, static_cast<int>(end - i < W ? end - i : W));
    return seen;
  };
  return parallel((call.batch + chunk - 1) / chunk, useful_threads(call.batch, call.threads, work), run);
}

inline int small_eigenpairs(const EigenpairsCall& call) {
  if (call.n == 3) return run_small(call, 400, [&](std::int64_t i, int l) { return small_eigenpairs_block<3>(call, i, l); });
  return run_small(call, 600, [&](std::int64_t i, int l) { return small_eigenpairs_block<4>(call, i, l); });
}

inline int small_gradient(const EigenGradientCall& call) {
  if (call.n == 3) return run_small(call, 200, [&](std::int64_t i, int l) { return small_gradient_block<3>(call, i, l); });
  return run_small(call, 300, [&](std::int64_t i, int l) { return small_gradient_block<4>(call, i, l); });
}

}  // namespace PMAF_ISA
}  // namespace pmaf
