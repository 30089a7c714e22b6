// The test of the kernels on the sphere and on factors, made to run under AddressSanitizer and UBSan (cmake
// -DPMAF_SANITIZE=ON). Every array is of exactly the size that the interface names, so that a read or write beyond it is found;
// answers are checked by stationarity and length, gradients by being finite.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "calls.h"
#include "gram_calls.h"
#include "sphere_calls.h"

extern "C" int pmaf_best_isa();
extern "C" int pmaf_sphere(int isa, const pmaf::SphereCall* call);
extern "C" int pmaf_sphere_gradient(int isa, const pmaf::SphereGradientCall* call);
extern "C" int pmaf_gram(int isa, const pmaf::GramCall* call);
extern "C" int pmaf_gram_gradient(int isa, const pmaf::GramGradientCall* call);
extern "C" int pmaf_gram_product(int isa, const pmaf::GramProductCall* call);
extern "C" int pmaf_gram_outer(int isa, const pmaf::GramOuterCall* call);
extern "C" int pmaf_gram_image(int isa, const pmaf::GramImageCall* call);
extern "C" int pmaf_triplet_gradient(int isa, const pmaf::TripletGradientCall* call);

namespace {

int failures = 0;

void check(bool holds, const char* what, int isa, int B, int m, int n) {
  if (holds) return;
  failures++;
  std::printf("%s: isa %d, %d items, %d×%d\n", what, isa, B, m, n);
}

template <class T>
std::vector<T> normal(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> draw;
  std::vector<T> x(size);
  for (auto& entry : x) entry = static_cast<T>(draw(random));
  return x;
}

// Over the complex numbers, of which each is `parts` = 2 real ones, the quadratic is read as (H + Hᴴ)/2.
template <class T>
void sphere(int isa, int B, int m, int n, bool quadratic, bool weighted, bool ball, bool poison, int parts) {
  const int rows = quadratic ? n : m;
  auto A = normal<T>(std::size_t(B) * rows * n * parts, 1), b = normal<T>(std::size_t(B) * rows * parts, 2);
  auto weights = normal<T>(std::size_t(B) * rows, 12);
  if (quadratic && parts == 1)
    for (int i = 0; i < B; i++)
      for (int j = 0; j < n; j++)
        for (int k = 0; k < j; k++) A[(std::size_t(i) * n + k) * n + j] = A[(std::size_t(i) * n + j) * n + k];
  for (auto& w : weights) w = w * w;
  if (poison && !A.empty()) A[A.size() / 2] = std::nan("");
  std::vector<T> radius(B, T(1.5)), u(std::size_t(B) * n * parts), scalars(4 * std::size_t(B));
  std::vector<std::int32_t> steps(B), code(B);
  const std::size_t factor_size = parts * (std::size_t(n) * (n + 1) / 2 + 2 * n) + 4;
  std::vector<double> wide(n <= 96 ? B * factor_size : 0);
  std::vector<T> narrow(n <= 96 ? 0 : B * factor_size);
  pmaf::SphereCall call{};
  call.type = (sizeof(T) == 4 ? pmaf::FLOAT32 : pmaf::FLOAT64) + (parts == 2 ? int(pmaf::COMPLEX64) : 0);
  call.batch = B, call.m = quadratic ? -1 : m, call.n = n, call.ball = ball, call.threads = 2, call.rtol = sizeof(T) == 4 ? 1e-6 : 1e-14;
  call.A = A.data(), call.b = b.data(), call.weights = weighted ? weights.data() : nullptr, call.radius = radius.data();
  call.A_stride = rows * n * parts, call.b_stride = rows * parts, call.weights_stride = rows, call.radius_stride = 1;
  call.u = u.data(), call.multiplier = scalars.data(), call.gap = scalars.data() + B, call.norm = scalars.data() + 2 * B;
  call.residual = scalars.data() + 3 * B, call.steps = steps.data(), call.code = code.data();
  call.factor = n <= 96 ? static_cast<void*>(wide.data()) : narrow.data();
  pmaf_sphere(isa, &call);
  const double eps = sizeof(T) == 4 ? 1.2e-7 : 2.3e-16;
  for (int i = 0; i < B; i++) {
    if (code[i] & (pmaf::SPHERE_NOT_FINITE | pmaf::SPHERE_INACCURATE)) continue;
    double length = 0;
    for (std::size_t j = i * u.size() / B; j < (i + 1) * u.size() / B; j++) length += double(u[j]) * u[j];
    const bool inside = code[i] & pmaf::SPHERE_INSIDE;
    check(std::sqrt(length) <= 1.5 * (1 + 8 * eps) && (inside || std::sqrt(length) >= 1.5 * (1 - 8 * eps)), "length", isa, B, m, n);
    check(scalars[3 * B + i] <= 64 * std::sqrt(n) * eps, "residual", isa, B, m, n);
  }
  auto vector = normal<T>(u.size(), 3), multiplier = normal<T>(B, 4);
  std::vector<T> w(u.size()), mu(B), A_gradient(A.size()), b_gradient(b.size()), weights_gradient(weights.size()), radius_gradient(B);
  pmaf::SphereGradientCall back{};
  back.type = call.type, back.batch = B, back.m = call.m, back.n = n, back.threads = 2;
  back.A = call.A, back.b = call.b, back.weights = call.weights, back.radius = call.radius;
  back.A_stride = call.A_stride, back.b_stride = call.b_stride, back.weights_stride = call.weights_stride, back.radius_stride = 1;
  back.u = u.data(), back.factor = call.factor, back.code = code.data();
  back.vector_cotangent = vector.data(), back.multiplier_cotangent = multiplier.data();
  back.w = w.data(), back.mu = mu.data(), back.A_gradient = A_gradient.data(), back.b_gradient = b_gradient.data();
  back.weights_gradient = weighted ? weights_gradient.data() : nullptr, back.radius_gradient = radius_gradient.data();
  pmaf_sphere_gradient(isa, &back);
  for (int i = 0; i < B; i++)
    for (int j = 0; j < rows * parts && !(code[i] & pmaf::SPHERE_INACCURATE); j++)
      check(std::isfinite(b_gradient[std::size_t(i) * rows * parts + j]), "gradient", isa, B, m, n);
}

template <class T>
void gram(int isa, int B, int m, int n, int k, bool weighted, bool poison) {
  auto F = normal<T>(std::size_t(B) * m * n, 5), weights = normal<T>(std::size_t(B) * m, 6);
  for (auto& w : weights) w = w * w;
  if (poison && !F.empty()) F[F.size() / 2] = std::nan("");
  std::vector<T> values(std::size_t(B) * k), vectors(std::size_t(B) * n * k), next(B), norm(B), residual(B);
  std::vector<std::int32_t> code(B);
  std::vector<double> factor(std::size_t(B) * (n * n + n + 1));
  pmaf::GramCall call{};
  call.type = sizeof(T) == 4 ? pmaf::FLOAT32 : pmaf::FLOAT64;
  call.batch = B, call.m = m, call.n = n, call.k = k, call.largest = B % 2, call.threads = 2;
  call.F = F.data(), call.weights = weighted ? weights.data() : nullptr, call.F_stride = m * n, call.weights_stride = m;
  call.values = values.data(), call.vectors = vectors.data(), call.next = next.data(), call.norm = norm.data();
  call.residual = residual.data(), call.code = code.data(), call.factor = factor.data();
  pmaf_gram(isa, &call);
  for (int i = 0; i < B; i++)
    if (code[i] == 0) check(residual[i] <= (sizeof(T) == 4 ? 1e-5 : 1e-13), "residual of a factor", isa, B, m, n);
  auto H = normal<T>(vectors.size(), 7), along = normal<T>(values.size(), 8);
  std::vector<T> W(vectors.size()), F_gradient(F.size()), weights_gradient(weights.size());
  pmaf::GramGradientCall back{};
  back.type = call.type, back.batch = B, back.m = m, back.n = n, back.k = k, back.threads = 2;
  back.F = call.F, back.weights = call.weights, back.F_stride = call.F_stride, back.weights_stride = m;
  back.factor = factor.data(), back.code = code.data(), back.vectors = vectors.data();
  back.vectors_cotangent = H.data(), back.values_cotangent = along.data(), back.rtol = 1e-6;
  back.W = W.data(), back.F_gradient = F_gradient.data(), back.weights_gradient = weights_gradient.data();
  pmaf_gram_gradient(isa, &back);
  for (const T& entry : F_gradient) check(std::isfinite(entry), "gradient of a factor", isa, B, m, n);
}

template <class T>
void products(int isa, int B, int m, int n, int k, bool poison, int parts) {
  auto F = normal<T>(std::size_t(B) * m * n * parts, 9);
  const auto U = normal<double>(std::size_t(B) * n * k * parts, 10), W = normal<double>(std::size_t(B) * n * k * parts, 11);
  std::vector<double> X(std::size_t(B) * n * n * parts);
  std::vector<T> gradient(F.size());
  std::vector<std::int32_t> code(B, 0);
  if (poison && !F.empty()) F[0] = T(std::nan("")), code[0] = 1;
  pmaf::GramProductCall call{};
  call.type = (sizeof(T) == 4 ? pmaf::FLOAT32 : pmaf::FLOAT64) + (parts == 2 ? int(pmaf::COMPLEX64) : 0);
  call.batch = B, call.m = m, call.n = n, call.threads = 2, call.F = F.data(), call.X = X.data();
  pmaf_gram_product(isa, &call);
  for (int i = code[0]; i < B; i++) check(X[std::size_t(i) * n * n * parts] >= 0, "square of a factor", isa, B, m, n);
  pmaf::GramOuterCall back{};
  back.type = call.type;
  back.batch = B, back.m = m, back.n = n, back.k = k, back.threads = 2, back.F = F.data(), back.code = code.data();
  back.U = U.data(), back.W = W.data(), back.F_gradient = gradient.data();
  pmaf_gram_outer(isa, &back);
  for (T entry : gradient) check(std::isfinite(entry), "gradient of a square", isa, B, m, n);
}

template <class T>
void few_columns(int isa, int B, int m, int n, int k) {
  const auto F = normal<T>(std::size_t(B) * m * n, 12), U = normal<T>(std::size_t(B) * m * k, 13);
  const auto w = normal<double>(std::size_t(B) * n * k, 14);
  std::vector<T> image(U.size()), gradient(F.size());
  pmaf::GramImageCall call{};
  call.type = sizeof(T) == 4 ? pmaf::FLOAT32 : pmaf::FLOAT64;
  call.batch = B, call.m = m, call.n = n, call.k = k, call.threads = 2;
  call.F = F.data(), call.V = w.data(), call.image = image.data();
  pmaf_gram_image(isa, &call);
  for (T entry : image) check(std::isfinite(entry), "image", isa, B, m, n);
  pmaf::TripletGradientCall back{};
  back.type = call.type;
  back.batch = B, back.m = m, back.n = n, back.k = k, back.threads = 2, back.F = F.data(), back.U = back.H = U.data();
  back.w = back.P = back.Q = w.data(), back.F_gradient = gradient.data();
  pmaf_triplet_gradient(isa, &back);
  for (T entry : gradient) check(std::isfinite(entry), "gradient of triplets", isa, B, m, n);
}

template <class T>
void everything(int isa) {
  const int shapes[][3] = {{1, 1, 1}, {1, 20, 3}, {9, 8, 3}, {11, 3, 5}, {3, 0, 2}, {5, 70, 33}, {2, 60, 41}, {2, 120, 97}};
  for (const auto& shape : shapes)
    for (int way = 0; way < 8; way++)
      for (bool quadratic : {false, true})
        for (int parts = 1; parts <= (shape[2] <= 40 ? 2 : 1); parts++)
          sphere<T>(isa, shape[0], shape[1], shape[2], quadratic, (way & 1) && !quadratic, way & 2, way & 4, parts);
  const int factors[][4] = {{1, 1, 1, 1}, {9, 16, 3, 1}, {10, 100, 9, 2}, {3, 2, 5, 5}, {2, 0, 3, 1}, {3, 50, 40, 3}};
  for (const auto& f : factors) few_columns<T>(isa, f[0], f[1], f[2], f[3]);
  for (const auto& f : factors)
    for (int way = 0; way < 4; way++) {
      gram<T>(isa, f[0], f[1], f[2], f[3], way & 1, way & 2);
      for (int parts = 1; parts <= 2; parts++) products<T>(isa, f[0], f[1], f[2], f[3], way & 2, parts);
    }
}

}  // namespace

int main() {
  for (int isa = 0; isa <= pmaf_best_isa(); isa++) {
    everything<float>(isa);
    everything<double>(isa);
  }
  std::printf(failures ? "%d failures\n" : "kernels on the sphere: every check holds\n", failures);
  return failures != 0;
}
