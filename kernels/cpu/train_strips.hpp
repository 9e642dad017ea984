// How the sparse layers' training kernels cut a batch and a matrix into pieces, compiled once for
// each target of Highway.
#include <hwy/highway.h>

#include <type_traits>

#include "cpu/train_lanes.hpp"

#if defined(SPDNN_CPU_TRAIN_STRIPS) == defined(HWY_TARGET_TOGGLE)
#ifdef SPDNN_CPU_TRAIN_STRIPS
#undef SPDNN_CPU_TRAIN_STRIPS
#else
#define SPDNN_CPU_TRAIN_STRIPS
#endif

HWY_BEFORE_NAMESPACE();
namespace spdnn::HWY_NAMESPACE {

/// Vectors of images that go through a kernel side by side, at most: their indices and values are
/// loaded once.
inline constexpr int kMostVectors = 4;

/// Some vectors of images of every feature. Two lie together in a panel; the third and fourth may
/// be of the next one.
template <int kVectors, class T>
struct Strip {
  T* begin[2];  ///< of the first feature
  /// Vector v of the feature that starts `offset` elements, features · width, after the first.
  HWY_INLINE T* operator()(std::int64_t offset, int v) const {
    return begin[v / 2] + offset + v % 2 * kLanes<std::remove_const_t<T>>;
  }
};

/// Vectors of a batch that have an image. Only those of the last panel can be fewer than fit it.
template <class T>
std::int64_t vectors_used(const Panels<const T>& x) {
  return (x.batch + kLanes<T> - 1) / kLanes<T>;
}

/// The strip from vector `first`, an even one where there are several.
template <int kVectors, class T>
HWY_INLINE Strip<kVectors, T> strip_of(const Panels<T>& panels, std::int64_t first) {
  constexpr std::int64_t lanes = kLanes<std::remove_const_t<T>>;
  const std::int64_t each = panels.width / lanes;
  const auto at = [&](std::int64_t v) {
    return panels.data + (v / each * panels.features * panels.width) + v % each * lanes;
  };
  return {{at(first), kVectors > 2 ? at(first + 2) : nullptr}};
}

/// Calls `visit.operator()<count>(first)` for strips of kMostVectors of `used` vectors, and for
/// what is left with 2 and 1.
template <class Visit>
HWY_INLINE void for_strips(std::int64_t used, const Visit& visit) {
  std::int64_t v = 0;
  for (; v + kMostVectors <= used; v += kMostVectors) visit.template operator()<kMostVectors>(v);
  for (; v + 2 <= used; v += 2) visit.template operator()<2>(v);
  if (v < used) visit.template operator()<1>(v);
}

/// Sets the vectors without an image to 0.
template <class T>
void clear_unused(const Panels<T>& panels, Range rows) {
  const std::int64_t last = panels.count() - 1;
  if (last < 0) return;
  const std::int64_t used = lanes_used<T>(panels, last);
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    T* const from = panels.panel(last) + row * panels.width;
    std::fill(from + used, from + panels.width, T{0});
  }
}

/// Rows of a matrix cut into pieces of about as much work, counted in entries and rows.
struct Pieces {
  std::int64_t rows;
  const std::int64_t* offsets;  ///< rows + 1
  std::int64_t count;

  [[nodiscard]] Range operator[](std::int64_t piece) const {
    return {first_row(piece), first_row(piece + 1)};
  }

 private:
  static constexpr std::int64_t kRow = 8;  ///< entries that a row's own work is worth
  [[nodiscard]] std::int64_t work(std::int64_t row) const {
    return offsets[row] - offsets[0] + kRow * row;
  }
  [[nodiscard]] std::int64_t first_row(std::int64_t piece) const {
    std::int64_t low = 0;
    std::int64_t high = rows;
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      if (work(middle) * count < work(rows) * piece) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

/// As many pieces as let `threads` finish together, and few enough that each gathers the rows of
/// other features, `gathered` of them, many times.
inline Pieces pieces_of(std::int64_t rows, const std::int64_t* offsets, std::int64_t gathered,
                        int threads) {
  const std::int64_t each = 16 * HWY_MAX(gathered, std::int64_t{1});
  const std::int64_t entries = offsets[rows] - offsets[0];
  return {rows, offsets,
          HWY_MAX(std::int64_t{1},
                  HWY_MIN(HWY_MAX(entries / each, std::int64_t{4} * threads), rows / 4))};
}

}  // namespace spdnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
