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

/// Halves the number of vectors until one is left, whose lane i is the sum over v[i]'s lanes: each
/// step adds the even and the odd lanes of two neighbours.
template <int kCount, class T, class D = Tag<T>>
HWY_INLINE hn::Vec<D> sums_across(hn::Vec<D>* v) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kCount > 1) {
    const D d;
    for (int i = 0; i < kCount / 2; ++i) {
      v[i] = hn::Add(hn::ConcatEven(d, v[2 * i + 1], v[2 * i]),
                     hn::ConcatOdd(d, v[2 * i + 1], v[2 * i]));
    }
    return sums_across<kCount / 2, T, D>(v);
  }
#endif
  return v[0];
}

/// db: each row's sum over all panels.
template <class T>
HWY_INLINE void sum_bias(const Panels<const T>& dz, Range rows, T* dbias) {
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
    dbias[row] = hn::GetLane(hn::SumOfLanes(d, sum));
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
