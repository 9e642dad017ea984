// What the CPU's training kernels share, compiled once for each target of Highway: vector types for
// float and double, what follows a sum, and the sums across lanes that weight gradients need.
//
// Panels must be a multiple of 32 images wide, so that they are whole vectors on every target.
#include <hwy/highway.h>

#include "spdnn/train_op.hpp"

#if defined(SPDNN_CPU_TRAIN_LANES) == defined(HWY_TARGET_TOGGLE)
#ifdef SPDNN_CPU_TRAIN_LANES
#undef SPDNN_CPU_TRAIN_LANES
#else
#define SPDNN_CPU_TRAIN_LANES
#endif

HWY_BEFORE_NAMESPACE();
namespace spdnn::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
template <class T>
using Tag = hn::CappedTag<T, 64 / sizeof(T)>;
template <class T>
using Vec = hn::Vec<Tag<T>>;
template <class T>
inline constexpr int kLanes = static_cast<int>(hn::MaxLanes(Tag<T>()));

/// Lanes of a panel up to the end of the last vector that has an image. The others need no sums;
/// they are kept at 0, for an activation that is not finite would spoil what it meets with a
/// gradient of 0.
template <class T, class P>
std::int64_t lanes_used(const P& x, std::int64_t panel) {
  const std::int64_t images = HWY_MIN(x.width, x.batch - panel * x.width);
  return (images + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

/// y = h(sum + bias), the end of a forward sum.
template <class T>
struct StoreActivation {
  const T* bias;
  T* y;  ///< panel of outputs
  std::int64_t width;
  T lower, upper;
  HWY_INLINE void operator()(std::int64_t row, std::int64_t lane, Vec<T> sum) const {
    const Tag<T> d;
    const auto y_row = hn::Add(sum, hn::Set(d, bias[row]));
    hn::StoreU(hn::Min(hn::Max(y_row, hn::Set(d, lower)), hn::Set(d, upper)), d,
               y + row * width + lane);
  }
  HWY_INLINE void clear(std::int64_t row, std::int64_t lane) const {
    hn::StoreU(hn::Zero(Tag<T>()), Tag<T>(), y + row * width + lane);
  }
};

/// dx = sum where x lies between the bounds of its activation, else 0: the end of a backward sum.
template <class T>
struct StoreMasked {
  const T* x;  ///< panel
  T* dx;       ///< panel
  std::int64_t width;
  T lower, upper;
  HWY_INLINE void operator()(std::int64_t row, std::int64_t lane, Vec<T> sum) const {
    const Tag<T> d;
    const auto x_row = hn::LoadU(d, x + row * width + lane);
    const auto inside = hn::And(hn::Gt(x_row, hn::Set(d, lower)), hn::Lt(x_row, hn::Set(d, upper)));
    hn::StoreU(hn::IfThenElseZero(inside, sum), d, dx + row * width + lane);
  }
  HWY_INLINE void clear(std::int64_t row, std::int64_t lane) const {
    hn::StoreU(hn::Zero(Tag<T>()), Tag<T>(), dx + row * width + lane);
  }
};

/// Adds halves of every 2 · kGroup lanes: the sums of a's in groups of even number, of b's in odd
/// ones. Half of the lanes stay where they are, which a blend does on any port; a shuffle does not.
template <int kGroup, class D>
HWY_INLINE hn::Vec<D> add_groups(D d, hn::Vec<D> a, hn::Vec<D> b) {
#if HWY_TARGET == HWY_SCALAR
  static_cast<void>(d);
  static_cast<void>(b);
  return a;
#else
  constexpr std::size_t kBytes = kGroup * sizeof(hn::TFromD<D>);
  if constexpr (2 * kGroup == hn::MaxLanes(D())) {
    return hn::Add(hn::ConcatUpperLower(d, b, a), hn::ConcatLowerUpper(d, b, a));
  } else if constexpr (kBytes == 16) {
    return hn::Add(hn::OddEvenBlocks(b, a), hn::SwapAdjacentBlocks(hn::OddEvenBlocks(a, b)));
  } else {
    const hn::Repartition<hwy::UnsignedFromSize<kBytes>, D> groups;
    const auto a_groups = hn::BitCast(groups, a);
    const auto b_groups = hn::BitCast(groups, b);
    return hn::Add(hn::BitCast(d, hn::OddEven(b_groups, a_groups)),
                   hn::BitCast(d, hn::Reverse2(groups, hn::OddEven(a_groups, b_groups))));
  }
#endif
}

/// Sums across the lanes of the vectors `of(first)`, …, `of(first + kCount - 1)`, computed in this
/// order and added up two by two as soon as they are there, so that few are kept: lane i of the
/// result is part of the sum over the lanes of vector i % kCount.
template <int kCount, class D, class Of>
HWY_INLINE hn::Vec<D> partial_sums(D d, const Of& of, int first = 0) {
  if constexpr (kCount == 1) {
    return of(first);
  } else {
    const auto a = partial_sums<kCount / 2>(d, of, first);
    const auto b = partial_sums<kCount / 2>(d, of, first + kCount / 2);
    return add_groups<kCount / 2>(d, a, b);
  }
}

/// Adds up the groups of kCount lanes: lane i of the result is the sum over lanes i % kCount.
template <int kCount, class D>
HWY_INLINE hn::Vec<D> fold_groups(D d, hn::Vec<D> sums) {
  if constexpr (kCount < hn::MaxLanes(D())) {
    return fold_groups<2 * kCount>(d, add_groups<kCount>(d, sums, sums));
  } else {
    return sums;
  }
}

/// Lane i is the sum over the lanes of `of(i % kCount)`; computed in order.
template <int kCount, class T, class Of>
HWY_INLINE Vec<T> sums_of(const Of& of) {
  const Tag<T> d;
  return fold_groups<kCount>(d, partial_sums<kCount>(d, of));
}

/// Lane i is the sum over the lanes of v[i]; as many vectors as lanes.
template <int kCount, class T, class D = Tag<T>>
HWY_INLINE hn::Vec<D> sums_across(const hn::Vec<D>* v) {
  return partial_sums<kCount>(D(), [&](int i) { return v[i]; });
}

/// db: each row's sum over all panels.
template <class T>
HWY_INLINE void sum_bias(const Panels<const T>& dz, Range rows,
                         const ParameterGradient<T>& gradient) {
  const Tag<T> d;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    auto sum = hn::Zero(d);
    for (std::int64_t p = 0; p < dz.count(); ++p) {
      const T* from = dz.panel(p) + row * dz.width;
      const std::int64_t used = lanes_used<T>(dz, p);
      for (std::int64_t lane = 0; lane < used; lane += kLanes<T>) {
        sum = hn::Add(sum, hn::LoadU(d, from + lane));
      }
    }
    T& to = gradient.bias[row];
    to = (gradient.adds_up ? to : T{0}) + hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

/// Panels whose products are summed in registers before lanes are: as many as leave their
/// activations, `features` of `T` each, in a core's second-level cache.
template <class T>
std::int64_t panels_together(std::int64_t features, std::int64_t width) {
  constexpr std::int64_t kCacheBytes = 512 * 1024;
  constexpr std::int64_t kMost = 8;
  const std::int64_t bytes = features * width * static_cast<std::int64_t>(sizeof(T));
  return HWY_MAX(std::int64_t{1}, HWY_MIN(kMost, kCacheBytes / HWY_MAX(bytes, std::int64_t{1})));
}

}  // namespace spdnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
