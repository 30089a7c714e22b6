// The kernels' own test, made to run under AddressSanitizer and UBSan (cmake -DPMAF_SANITIZE=ON). Every array is of exactly
// the size that the interface names, so that a read or write beyond it is found. The oracle is Jacobi's method on scalars in
// extended precision.
#include <cmath>
#include <complex>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <type_traits>
#include <vector>

#include "calls.h"

extern "C" int pmaf_best_isa();
extern "C" int pmaf_eigenpairs(int isa, const pmaf::EigenpairsCall* call);
extern "C" int pmaf_eigen_gradient(int isa, const pmaf::EigenGradientCall* call);

namespace {

using Real = long double;

// Eigenvalues of a Hermitian matrix, in descending order: cyclic Jacobi on the real symmetric form [[Re, −Im], [Im, Re]], in
// which each eigenvalue of a complex matrix occurs twice.
std::vector<Real> jacobi(std::vector<Real> a, int n) {
  for (int sweep = 0; sweep < 60; sweep++) {
    Real off = 0, all = 0;
    for (int i = 0; i < n; i++)
      for (int j = 0; j < n; j++) (i == j ? all : off) += a[i * n + j] * a[i * n + j];
    if (off <= 1e-36L * (all + off)) break;
    for (int p = 0; p < n; p++)
      for (int q = p + 1; q < n; q++) {
        const Real f = a[p * n + q];
        if (f == 0) continue;
        const Real theta = (a[q * n + q] - a[p * n + p]) / (2 * f);
        const Real t = (theta >= 0 ? 1 : -1) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
        const Real c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (int i = 0; i < n; i++) {
          const Real x = a[i * n + p], y = a[i * n + q];
          a[i * n + p] = c * x - s * y, a[i * n + q] = s * x + c * y;
        }
        for (int i = 0; i < n; i++) {
          const Real x = a[p * n + i], y = a[q * n + i];
          a[p * n + i] = c * x - s * y, a[q * n + i] = s * x + c * y;
        }
      }
  }
  std::vector<Real> values(n);
  for (int i = 0; i < n; i++) values[i] = a[i * n + i];
  for (int i = 0; i < n; i++)
    for (int j = i + 1; j < n; j++)
      if (values[j] > values[i]) std::swap(values[i], values[j]);
  return values;
}

template <class E>
struct Scalar {
  using type = E;
  static constexpr bool is_complex = false;
};
template <class T>
struct Scalar<std::complex<T>> {
  using type = T;
  static constexpr bool is_complex = true;
};

int failures = 0;

void expect(bool holds, const char* what, int isa, int type, int n, int k, int item) {
  if (holds) return;
  failures++;
  std::printf("isa %d, type %d, n = %d, k = %d, item %d: %s\n", isa, type, n, k, item, what);
}

template <class E>
E random_entry(std::mt19937& random, bool real) {
  std::normal_distribution<double> normal;
  using T = typename Scalar<E>::type;
  if constexpr (Scalar<E>::is_complex) return E(T(normal(random)), real ? T(0) : T(normal(random)));
  else return E(normal(random));
}

template <class E>
E conjugate(E x) {
  if constexpr (Scalar<E>::is_complex) return std::conj(x);
  else return x;
}

template <class E>
void run(int isa, int type, int batch, int n, int k, bool largest, int threads, int kind) {
  using T = typename Scalar<E>::type;
  std::mt19937 random(1000 * n + 10 * k + batch + kind);
  std::vector<E> X(std::size_t(batch) * n * n), vectors(std::size_t(batch) * n * k), factor(std::size_t(batch) * (n / 2 + 2) * n), H(vectors.size()),
      W(vectors.size()), gradient(X.size());
  std::vector<T> values(std::size_t(batch) * k), next(batch), norm(batch), residual(batch), cotangent(values.size()), phase(values.size());
  std::vector<std::int32_t> code(batch), gradient_code(batch);
  for (int b = 0; b < batch; b++)
    for (int i = 0; i < n; i++)
      for (int j = 0; j <= i; j++) {
        E x = random_entry<E>(random, i == j);
        if (kind == 1) x = E(T(i == j));                     // the identity
        if (kind == 2 && i != j && i != j + 1) x = E(T(0));  // tridiagonal
        if (kind == 3) x = E(T(1));                          // rank one
        if (kind == 4) x = x * T(std::pow(10.0, -12.0 * (i + j) / (2 * n)));
        X[(std::size_t(b) * n + i) * n + j] = x;
        X[(std::size_t(b) * n + j) * n + i] = conjugate(x);
      }
  const int spoiled = batch > 2 ? 1 : -1;
  if (spoiled >= 0) X[std::size_t(spoiled) * n * n] = E(std::numeric_limits<T>::quiet_NaN());
  for (E& h : H) h = random_entry<E>(random, false);
  for (T& c : cotangent) c = T(random_entry<double>(random, true));
  const std::vector<E> reference(std::size_t(n), E(T(1)));

  pmaf::EigenpairsCall call{};
  call.type = type, call.batch = batch, call.n = n, call.k = k, call.largest = largest;
  call.X = X.data(), call.reference = kind == 0 ? reference.data() : nullptr, call.reference_columns = 1;
  call.allowed = 1e-3, call.threads = threads;
  call.values = values.data(), call.vectors = vectors.data(), call.next = next.data(), call.norm = norm.data();
  call.residual = residual.data(), call.code = code.data(), call.factor = factor.data(), call.phase = phase.data();
  pmaf_eigenpairs(isa, &call);

  pmaf::EigenGradientCall back{};
  back.type = type, back.batch = batch, back.n = n, back.k = k, back.largest = largest;
  back.X = X.data(), back.factor = factor.data(), back.values = values.data(), back.vectors = vectors.data();
  back.next = next.data(), back.norm = norm.data(), back.code = code.data(), back.H = H.data();
  if (Scalar<E>::is_complex) back.phase = phase.data(), back.reference = call.reference, back.reference_columns = 1;
  back.values_cotangent = cotangent.data(), back.rtol = sizeof(T) == 4 ? 1e-5 : 1e-13, back.threads = threads;
  back.W = W.data(), back.gradient = gradient.data(), back.gradient_code = gradient_code.data();
  pmaf_eigen_gradient(isa, &back);

  const Real bound = sizeof(T) == 4 ? 3e-6L : 1e-11L;
  for (int b = 0; b < batch; b++) {
    if (b == spoiled) {
      expect(code[b] == pmaf::NOT_FINITE && std::isnan(values[std::size_t(b) * k]), "NaN is told", isa, type, n, k, b);
      for (int i = 0; i < n * n; i++)
        expect(gradient[std::size_t(b) * n * n + i] == E(T(0)), "no gradient without an answer", isa, type, n, k, b);
      continue;
    }
    expect((code[b] & 7) == 0, "an answer", isa, type, n, k, b);
    for (int i = 0; i < n * n; i++)
      expect(std::isfinite(std::abs(gradient[std::size_t(b) * n * n + i])), "a finite gradient", isa, type, n, k, b);
    if (n > 40 || (n > 20 && b > 0)) continue;  // the oracle is slow
    const int copies = Scalar<E>::is_complex ? 2 : 1, m = copies * n;
    std::vector<Real> real(std::size_t(m) * m);
    for (int i = 0; i < n; i++)
      for (int j = 0; j < n; j++) {
        const std::complex<Real> x = std::complex<Real>(X[(std::size_t(b) * n + i) * n + j]);
        real[i * m + j] = x.real();
        if (copies == 2) {
          real[(n + i) * m + n + j] = x.real();
          real[i * m + n + j] = -x.imag(), real[(n + i) * m + j] = x.imag();
        }
      }
    const std::vector<Real> exact = jacobi(real, m);
    const Real size = std::fmax(std::fabs(exact[0]), std::fabs(exact[m - 1]));
    for (int w = 0; w <= k && w < n; w++) {
      const Real want = largest ? exact[copies * w] : exact[m - 1 - copies * w];
      const Real have = w < k ? values[std::size_t(b) * k + w] : next[b];
      expect(std::fabs(have - want) <= bound * size, "an eigenvalue", isa, type, n, k, b);
    }
  }
}

template <class E>
void all(int isa, int type) {
  for (int n : {1, 2, 3, 4, 5, 8, 9, 16, 17, 33})
    for (int batch : {1, 3, 5, 19})
      for (int k : {1, 2, n}) {
        if (k > n || (n > 16 && batch > 5)) continue;
        run<E>(isa, type, batch, n, k, (n + batch) % 2 == 0, 1, 0);
      }
  for (int kind = 1; kind < 5; kind++)
    for (int n : {2, 3, 9, 20}) run<E>(isa, type, 5, n, n > 4 ? 4 : n, kind % 2 == 0, 1, kind);
  run<E>(isa, type, 700, 16, 1, true, 4, 0);
  run<E>(isa, type, 1, 40, 2, true, 1, 0);  // alone, by rows
  for (int n : {150, 200}) run<E>(isa, type, 3, n, 2, n == 150, 2, 0);
}

}  // namespace

int main() {
  for (int isa = 0; isa <= pmaf_best_isa(); isa++) {
    all<float>(isa, pmaf::FLOAT32);
    all<double>(isa, pmaf::FLOAT64);
    all<std::complex<float>>(isa, pmaf::COMPLEX64);
    all<std::complex<double>>(isa, pmaf::COMPLEX128);
  }
  std::printf(failures ? "%d failures\n" : "kernels: every check holds\n", failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
