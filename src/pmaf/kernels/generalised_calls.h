// What the kernel of generalised eigenproblems is called with; see calls.h for the conventions.
#pragma once

#include <cstdint>

namespace pmaf {

enum ReductionCode : int {
  REDUCED = 0,
  NOT_DEFINITE = 1,          // a pivot of B is no more than rounding, or not a number: no answer
  NOT_HERMITIAN = 2,         // X or B is further from Hermitian than allowed
  REDUCTION_NO_MEMORY = 32,  // nothing was computed
};

struct ReductionCall {
  int type;  // as in calls.h
  std::int64_t batch, n;
  int threads;
  double allowed;      // how far an entry may be from its mirror image, relative to the largest of its matrix
  const void *X, *B;   // (batch, n, n), of which the Hermitian parts count
  void* reduced;       // (batch, n, n) L⁻¹XL⁻ᴴ, exactly Hermitian
  void* factor;        // (batch, n, n) Lᵀ, so that L lies in columns
  std::int32_t* code;  // (batch,)
};

}  // namespace pmaf
