// What the kernels on factors, X = FᵀWF, are called with; see sphere_calls.h for the conventions.
#pragma once

#include <cstdint>

namespace pmaf {

enum GramCode : int {
  GRAM_FINE = 0,
  GRAM_NOT_FINITE = 1,  // NaN or an infinity in the data: no answer
  GRAM_INACCURATE = 4,  // the iteration did not end: another solver should take the item
  GRAM_NO_MEMORY = 32,  // nothing was computed
};

struct GramCall {
  int type;
  std::int64_t batch, m, n, k;
  int largest, threads;
  const void *F, *weights, *reference;  // (batch, m, n), (batch, m) or null, (batch or 1, n, 1 or k) or null: all ones
  std::int64_t F_stride, weights_stride, reference_stride, reference_columns;
  void *values, *vectors, *next, *norm, *residual;  // singular values (batch, k), (batch, n, k), (batch,) three times
  std::int32_t* code;                               // (batch,)
  double* factor;  // (batch, n² + n + 1): right vectors in rows, the selected ones first, values in units of 2^e, e
};

struct GramGradientCall {
  int type;
  std::int64_t batch, m, n, k;
  int threads;
  const void *F, *weights;
  std::int64_t F_stride, weights_stride;
  const double* factor;
  const std::int32_t* code;
  const void *vectors;                             // (batch, n, k), as returned
  const void *vectors_cotangent, *values_cotangent;  // (batch, n, k), (batch, k) of the squares; null: zero
  double rtol;  // components along vectors whose singular value is within rtol·‖F‖ are left out
  void *W, *F_gradient, *weights_gradient;  // (batch, n, k), (batch, m, n), (batch, m); null: not wanted
};

// F V for real F.
struct GramImageCall {
  int type;  // of F and of the image: real ones
  std::int64_t batch, m, n, k;
  int threads;
  const void* F;    // (batch, m, n)
  const double* V;  // (batch, n, k)
  void* image;      // (batch, m, k)
};

// F̄ = U Pᵀ + (H + F w) Qᵀ for real F.
struct TripletGradientCall {
  int type;
  std::int64_t batch, m, n, k;
  int threads;
  const void *F, *U, *H;     // (batch, m, n), (batch, m, k) twice; H may be null
  const double *w, *P, *Q;   // (batch, n, k)
  void* F_gradient;          // (batch, m, n)
};

// X = FᴴF in double precision, real or complex; complex F have n ≤ 128.
struct GramProductCall {
  int type;  // of F, as in calls.h
  std::int64_t batch, m, n;
  int threads;
  const void* F;  // (batch, m, n)
  double* X;      // (batch, n, n)
};

// F̄ = (FU)Wᴴ + (FW)Uᴴ, zero where there is a code.
struct GramOuterCall {
  int type;  // of F
  std::int64_t batch, m, n, k;
  int threads;
  const void* F;             // (batch, m, n)
  const double *U, *W;       // (batch, n, k)
  const std::int32_t* code;  // (batch,)
  void* F_gradient;          // (batch, m, n)
};

}  // namespace pmaf
