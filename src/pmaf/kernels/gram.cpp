// The kernels on factors for one instruction set.
#include "gram.h"

#include "blocks.h"
#include "few_columns.h"
#include "gram_products.h"

namespace pmaf {
namespace PMAF_ISA {

// About how many operations sweeps over the pairs of columns take, and products with the factor.
template <class Call>
double sweeps(const Call& call) {
  return 10.0 * static_cast<double>(call.m) * static_cast<double>(call.n * call.n);
}
template <class Call>
double products(const Call& call, std::int64_t columns) {
  return 2.0 * static_cast<double>(call.m) * static_cast<double>(call.n * columns);
}

template <class D, int W>
int gram_in_lanes(const GramCall& call) {
  const GramSolver<D, W> kernel{call};
  return over_blocks(call.batch, W, call.threads, sweeps(call), kernel.bytes(call.n), GRAM_NO_MEMORY, kernel);
}

template <class D>
int gram_of(const GramCall& call) {
  return call.batch <= 2 ? gram_in_lanes<D, 2>(call) : gram_in_lanes<D, full_width<double>>(call);
}

template <class D>
int gram_gradient_of(const GramGradientCall& call) {
  const GramGradient<D> kernel{call};
  const double work = products(call, 2 * call.k);
  return over_blocks(call.batch, 1, call.threads, work, kernel.bytes(call.n, call.k), GRAM_NO_MEMORY, kernel);
}

template <class D, bool is_complex>
int products_one_by_one(const GramProductCall& call) {
  using Kernel = ProductOfOne<D, is_complex>;
  const double work = products(call, call.n) * (is_complex ? 4 : 1);
  return over_blocks(call.batch, 1, call.threads, work, Kernel::bytes(call.n), GRAM_NO_MEMORY, Kernel{call});
}

// Few items, or ones whose square in lanes leaves the nearest memory, are taken one at a time: with the same bits.
int gram_product(const GramProductCall& call) {
  constexpr int W = full_width<double>;
  constexpr std::int64_t widest = 24;
  if (call.type == COMPLEX64) return products_one_by_one<float, true>(call);
  if (call.type == COMPLEX128) return products_one_by_one<double, true>(call);
  if (call.type == FLOAT64) return products_one_by_one<double, false>(call);
  if (call.batch < W || call.n > widest) return products_one_by_one<float, false>(call);
  using Kernel = ProductInLanes<W>;
  const double work = products(call, call.n);
  return over_blocks(call.batch, W, call.threads, work, Kernel::bytes(call.n), GRAM_NO_MEMORY, Kernel{call});
}

template <class Kernel>
int outer_by(const GramOuterCall& call, int operations) {
  const double work = products(call, 2 * call.k) * operations;
  return over_blocks(call.batch, 1, call.threads, work, Kernel::bytes(call.n, call.k), GRAM_NO_MEMORY, Kernel{call});
}

int gram_outer(const GramOuterCall& call) {
  switch (call.type) {
    case FLOAT32: return outer_by<GramOuter<float>>(call, 1);
    case FLOAT64: return outer_by<GramOuter<double>>(call, 1);
    case COMPLEX64: return outer_by<ComplexGramOuter<float>>(call, 4);
    default: return outer_by<ComplexGramOuter<double>>(call, 4);
  }
}

template <class Kernel, class Call>
int few_columns(const Call& call, int passes) {
  const std::int64_t shares = (call.m + rows_of_a_thread - 1) / rows_of_a_thread;
  const double work = passes * products(call, call.k) / static_cast<double>(shares ? shares : 1);
  return over_blocks(call.batch * shares, 1, call.threads, work, Kernel::bytes(call.n, call.k), GRAM_NO_MEMORY, Kernel{call});
}

int gram_image(const GramImageCall& call) {
  return call.type == FLOAT32 ? few_columns<GramImage<float>>(call, 1) : few_columns<GramImage<double>>(call, 1);
}
int triplet_gradient(const TripletGradientCall& call) {
  return call.type == FLOAT32 ? few_columns<TripletGradient<float>>(call, 3) : few_columns<TripletGradient<double>>(call, 3);
}

int gram(const GramCall& call) { return call.type == FLOAT32 ? gram_of<float>(call) : gram_of<double>(call); }
int gram_gradient(const GramGradientCall& call) {
  return call.type == FLOAT32 ? gram_gradient_of<float>(call) : gram_gradient_of<double>(call);
}

}  // namespace PMAF_ISA
}  // namespace pmaf
