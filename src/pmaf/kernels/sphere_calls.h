// What the kernels on the sphere are called with: plain data, the same for every instruction set. Tensors have the items
// first; inputs may repeat one item (a stride of zero), outputs are contiguous. A complex number is two real ones, which
// strides count; complex problems have n ≤ 128.
#pragma once

#include <cstdint>

namespace pmaf {

// What an item is told; a call returns all codes of its items or-ed together.
enum SphereCode : int {
  SPHERE_FINE = 0,
  SPHERE_NOT_FINITE = 1,   // NaN or an infinity in the data: no answer
  SPHERE_NOT_UNIQUE = 2,   // the gap is within the tolerance: two mirror minimisers, or more
  SPHERE_INACCURATE = 4,   // a residual or a gap that the Gram matrix cannot vouch for: another solver should take the item
  SPHERE_INSIDE = 8,       // the constraint of the ball is not active
  SPHERE_REPEATED = 16,    // not unique, and λ₁ repeats: gradients need an eigenbasis
  SPHERE_NO_MEMORY = 32,   // nothing was computed
  SPHERE_SINGULAR = 64,    // solved from singular values; its gradient is as well
  SPHERE_VAGUE = 128,      // not returned: worth solving from singular values
};

// minimise ½‖W^½(Au − b)‖², or ½uᵀHu − gᵀu where m < 0 (A is H, b is g), on the sphere or in the ball of a radius.
struct SphereCall {
  int type;  // as in calls.h
  std::int64_t batch, m, n;
  const void *A, *b, *weights, *radius;  // (batch, m, n), (batch, m), (batch, m) or null, (batch,) real
  std::int64_t A_stride, b_stride, weights_stride, radius_stride;  // numbers between items
  int ball, threads;
  double rtol, atol;
  void *u, *multiplier, *gap, *norm, *residual;  // (batch, n), (batch,) real four times
  std::int32_t *steps, *code;                    // (batch,)
  void* factor;  // (batch, factor_size(n)) of the type it is computed in, as in sphere_basis.h; null: not wanted
};

// Gradients of ⟨H, u⟩ + h·λ, or with `only_solve` the solution (w, μ) of the bordered system alone.
struct SphereGradientCall {
  int type;
  std::int64_t batch, m, n;
  const void *A, *b, *weights, *radius;
  std::int64_t A_stride, b_stride, weights_stride, radius_stride;
  int threads;
  const void *u, *factor;
  const std::int32_t* code;
  const void *vector_cotangent, *multiplier_cotangent;  // (batch, n), (batch,) real; null: zero
  void *w, *mu;                                         // (batch, n), (batch,) real; null: not wanted
  void *A_gradient, *b_gradient, *weights_gradient, *radius_gradient;  // as the inputs, contiguous; null: not wanted
};

}  // namespace pmaf
