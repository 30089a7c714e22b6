// The test of the kernel of generalised eigenproblems, made to run under AddressSanitizer and UBSan (cmake -DPMAF_SANITIZE=ON).
// Every array is of exactly the size that the interface names. Answers are checked by what they mean, L Lᴴ = B and
// L R Lᴴ = X, in extended precision.
#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "calls.h"
#include "generalised_calls.h"

extern "C" int pmaf_best_isa();
extern "C" int pmaf_reduction(int isa, const pmaf::ReductionCall* call);

namespace {

using Wide = std::complex<long double>;

int failures = 0;

void check(bool holds, const char* what, int isa, int type, int n, int item) {
  if (holds) return;
  failures++;
  std::printf("%s: isa %d, type %d, n = %d, item %d\n", what, isa, type, n, item);
}

template <class E>
struct Scalar {
  using type = E;
  static E draw(std::mt19937& random) { return E(std::normal_distribution<double>()(random)); }
  static E conj(E x) { return x; }
};
template <class T>
struct Scalar<std::complex<T>> {
  using type = T;
  static std::complex<T> draw(std::mt19937& random) { return {Scalar<T>::draw(random), Scalar<T>::draw(random)}; }
  static std::complex<T> conj(std::complex<T> x) { return std::conj(x); }
};

// Square matrices of order n, one after the other, read as wide complex numbers.
template <class E>
struct Matrices {
  int n;
  std::vector<E> entries;
  Matrices(int batch, int order) : n(order), entries(std::size_t(batch) * order * order) {}
  E& at(int item, int i, int j) { return entries[(std::size_t(item) * n + i) * n + j]; }
  Wide wide(int item, int i, int j) { return Wide(at(item, i, j)); }
};

// Hermitian ones, with `shift` added to the diagonal.
template <class E>
Matrices<E> hermitian(int batch, int n, double size, double shift, unsigned seed) {
  using T = typename Scalar<E>::type;
  std::mt19937 random(seed);
  Matrices<E> X(batch, n);
  for (int b = 0; b < batch; b++)
    for (int i = 0; i < n; i++) {
      for (int j = 0; j < i; j++) X.at(b, j, i) = Scalar<E>::conj(X.at(b, i, j) = Scalar<E>::draw(random) * T(size));
      X.at(b, i, i) = E(std::real(Scalar<E>::draw(random)) * T(size) + T(shift));
    }
  return X;
}

// The largest entry of |L M Lᴴ − A| over that of |A|, with the identity for M if there is none.
template <class E>
long double misfit(Matrices<E>& L, Matrices<E>* M, Matrices<E>& A, int item) {
  const int n = A.n;
  const auto l = [&](int i, int p) { return L.wide(item, p, i); };  // L lies in columns
  long double apart = 0, size = 0;
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) {
      Wide sum = 0;
      for (int p = 0; p <= i; p++)
        for (int q = M ? 0 : p; q <= (M ? j : std::min(p, j)); q++)
          sum += l(i, p) * (M ? M->wide(item, p, q) : Wide(1)) * std::conj(l(j, q));
      apart = std::fmax(apart, std::abs(sum - A.wide(item, i, j)));
      size = std::fmax(size, std::abs(A.wide(item, i, j)));
    }
  return apart / size;
}

// Of four items or more, item 1 has no positive definite B, item 2 has NaN in B, and item 3 in X, which goes on into R.
template <class E>
void run(int isa, int type, int batch, int n, int threads) {
  using T = typename Scalar<E>::type;
  auto X = hermitian<E>(batch, n, 1, 0, 7 * n + batch), B = hermitian<E>(batch, n, 0.3 / std::sqrt(n), 2, 11 * n + batch);
  if (batch > 3) {
    B.at(1, n - 1, n - 1) = E(T(-1));
    B.at(2, n - 1, 0) = X.at(3, 0, n - 1) = E(std::numeric_limits<T>::quiet_NaN());
  }
  Matrices<E> R(batch, n), L(batch, n);
  std::vector<std::int32_t> code(batch, -1);
  pmaf::ReductionCall call{};
  call.type = type, call.batch = batch, call.n = n, call.threads = threads, call.allowed = 1e-3;
  call.X = X.entries.data(), call.B = B.entries.data();
  call.reduced = R.entries.data(), call.factor = L.entries.data(), call.code = code.data();
  const int seen = pmaf_reduction(isa, &call);
  int all = 0;
  for (int b = 0; b < batch; b++) {
    all |= code[b];
    if (batch > 3 && (b == 1 || b == 2)) check(code[b] & pmaf::NOT_DEFINITE, "B is not definite", isa, type, n, b);
    if (batch > 3 && 1 <= b && b <= 3) continue;
    check(code[b] == pmaf::REDUCED, "an answer", isa, type, n, b);
    if (batch > 100 && b > 20) continue;  // the oracle is slow
    const long double bound = 64 * n * std::numeric_limits<T>::epsilon();
    check(misfit<E>(L, nullptr, B, b) <= bound, "L Lᴴ = B", isa, type, n, b);
    check(misfit<E>(L, &R, X, b) <= bound, "L R Lᴴ = X", isa, type, n, b);
    for (int i = 0; i < n; i++)
      for (int j = 0; j < n; j++)
        check(R.at(b, i, j) == Scalar<E>::conj(R.at(b, j, i)), "R is exactly Hermitian", isa, type, n, b);
  }
  check(seen == all, "the codes of all items", isa, type, n, -1);
}

template <class E>
void all(int isa, int type) {
  for (int n : {1, 2, 3, 4, 5, 8, 9, 17, 24})
    for (int batch : {1, 2, 3, 7, 19}) run<E>(isa, type, batch, n, 1);
  run<E>(isa, type, 500, 6, 3);
  run<E>(isa, type, 0, 4, 1);
}

}  // namespace

int main() {
  for (int isa = 0; isa <= pmaf_best_isa(); isa++) {
    all<float>(isa, pmaf::FLOAT32);
    all<double>(isa, pmaf::FLOAT64);
    all<std::complex<float>>(isa, pmaf::COMPLEX64);
    all<std::complex<double>>(isa, pmaf::COMPLEX128);
  }
  std::printf(failures ? "%d failures\n" : "generalised: every check holds\n", failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
