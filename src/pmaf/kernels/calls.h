// What a kernel is called with: plain data, the same for every instruction set. Tensors are contiguous, items first.
#pragma once

#include <cstdint>

namespace pmaf {

// Data types, as the Python side numbers them.
enum Type : int { FLOAT32 = 0, FLOAT64 = 1, COMPLEX64 = 2, COMPLEX128 = 3 };

// What an item may be told; a call returns all codes of its items or-ed together.
enum Code : int {
  FINE = 0,
  NOT_FINITE = 1,    // X holds NaN or an infinity: no answer
  ASYMMETRIC = 2,    // X is further from Hermitian than allowed: no answer
  INACCURATE = 4,    // residual or orthonormality was missed: another solver should take the item
  REPEATED = 8,      // a needed difference of eigenvalues is within the tolerance
  NEEDS_BASIS = 16,  // backward: the wanted eigenvalue coincides with an unwanted one
  NO_MEMORY = 32,    // nothing was computed
};

struct EigenpairsCall {
  int type;
  std::int64_t batch, n, k;
  int largest;
  const void* X;          // (batch, n, n)
  const void* reference;  // (batch or 1, n, 1 or k); null: all ones
  std::int64_t reference_item, reference_columns;
  double allowed, rtol, atol;
  int threads;
  void* values;     // (batch, k), real
  void* vectors;    // (batch, n, k)
  void* next;       // (batch,), real; NaN where k = n
  void* norm;       // (batch,), real
  void* residual;   // (batch,), real, relative to norm
  std::int32_t* code;  // (batch,)
  void* factor;     // (batch, n/2 + 2, n); see tridiagonal.h; left alone where the closed form of small.h needs none
  void* phase;      // (batch, k), real, of complex vectors: their inner product with the reference, or less that with
                    // the generic vector where it decided, or 0 where neither did; null: not wanted
};

struct EigenGradientCall {
  int type;
  std::int64_t batch, n, k;
  int largest;
  const void* X;        // (batch, n, n)
  const void* factor;   // (batch, n/2 + 2, n), as the forward pass left it
  const void* values;   // (batch, k), real
  const void* vectors;  // (batch, n, k)
  const void* next;     // (batch,), real
  const void* norm;     // (batch,), real
  const std::int32_t* code;  // (batch,)
  const void* H;        // (batch, n, k): the cotangent of the vectors; null: none
  const void* values_cotangent;  // (batch, k), real; null: none
  const void* phase;      // (batch, k), real, as the forward pass left it: H is that of the turned vectors; null: of
                          // vectors whose phase does not move, uᴴdu = 0
  const void* reference;  // as in the forward pass; for the phase alone
  std::int64_t reference_item, reference_columns;
  double rtol, atol;
  int threads;
  void* W;         // (batch, n, k): Σ over separated components of (λᵢI − X)⁺ hᵢ; null: not wanted
  void* gradient;  // (batch, n, n); null: not wanted
  std::int32_t* gradient_code;  // (batch,); null: not wanted
};

}  // namespace pmaf
