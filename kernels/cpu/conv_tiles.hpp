// What the CPU's convolutions share, compiled once for each target of Highway: tiles of output
// pixels, and the inputs that a tile reads, packed.
//
// A tile is 4 × 4 (2 × 4 with 16 registers) pixels by one vector of images, or by half a one of 512
// bits where no more images are left: cores that do the two halves one after the other take half as
// long for it. Vectors without an image are left out. The planes a tile reads are
// copied once, with zeros where the window leaves them, and serve all filters: no inner loop knows
// of borders or strides. That is no im2col: an input is copied once for each tile that reads it,
// not once for each place of the window. Packed inputs stay in the second-level cache.
#include <hwy/aligned_allocator.h>
#include <hwy/highway.h>

#include <algorithm>
#include <vector>

#include "cpu/train_lanes.hpp"

#if defined(SPDNN_CPU_CONV_TILES) == defined(HWY_TARGET_TOGGLE)
#ifdef SPDNN_CPU_CONV_TILES
#undef SPDNN_CPU_CONV_TILES
#else
#define SPDNN_CPU_CONV_TILES
#endif

HWY_BEFORE_NAMESPACE();
namespace spdnn::HWY_NAMESPACE {

constexpr int kTileY = HWY_TARGET <= HWY_AVX3 ? 4 : 2;
constexpr int kTileX = 4;
constexpr int kTilePixels = kTileY * kTileX;

constexpr bool kHalfVectors = HWY_TARGET <= HWY_AVX3;
template <class D>
inline constexpr int kLanesOf = static_cast<int>(hn::MaxLanes(D()));

/// How a tile reads planes `[channels][height][width]`: pixel (y, x) of the tiles' lattice meets
/// tap (ty, tx) at (y · step + shift_y + ty, x · step + shift_x + tx).
struct TileReads {
  std::int64_t channels, height, width;
  std::int64_t step;
  std::int64_t shift_y, shift_x;
  std::int64_t taps_y, taps_x;

  /// Packed inputs are kept apart by their place modulo the step, so that pixels side by side read
  /// vectors side by side. Per phase there are so many.
  [[nodiscard]] std::int64_t packed_y() const { return kTileY - 1 + (taps_y + step - 1) / step; }
  [[nodiscard]] std::int64_t packed_x() const { return kTileX - 1 + (taps_x + step - 1) / step; }
  /// Vectors from a packed row to the next, and from a channel to the next.
  [[nodiscard]] std::int64_t row_stride() const { return step * packed_x(); }
  [[nodiscard]] std::int64_t channel_stride() const { return step * packed_y() * row_stride(); }
  /// Where pixel (0, 0) of a tile finds tap (ty, tx) of channel 0; pixel (i, j) finds it
  /// i · row_stride + j further.
  [[nodiscard]] std::int64_t at(std::int64_t ty, std::int64_t tx) const {
    return (ty % step * packed_y() + ty / step) * row_stride() + tx % step * packed_x() + tx / step;
  }
};

/// Memory of a thread that is kept from call to call.
template <class T>
T* scratch(std::int64_t count) {
  thread_local hwy::AlignedFreeUniquePtr<T[]> memory;
  thread_local std::int64_t size = 0;
  if (size < count) {
    memory = hwy::AllocateAligned<T>(static_cast<std::size_t>(count));
    size = count;
  }
  return memory.get();
}

/// Copies what the tile at (y0, x0) reads of a panel's images from `lane` on.
template <class D, class T = hn::TFromD<D>>
HWY_INLINE void pack_tile(D d, const TileReads& reads, const T* panel, std::int64_t width,
                          std::int64_t lane, std::int64_t y0, std::int64_t x0, T* packed) {
  const std::int64_t rows = reads.step * reads.packed_y();
  const std::int64_t cols = reads.step * reads.packed_x();
  const std::int64_t first_y = y0 * reads.step + reads.shift_y;
  const std::int64_t first_x = x0 * reads.step + reads.shift_x;
  for (std::int64_t c = 0; c < reads.channels; ++c) {
    const T* plane = panel + c * reads.height * reads.width * width + lane;
    for (std::int64_t ty = 0; ty < rows; ++ty) {
      const std::int64_t y = first_y + ty;
      const bool inside = y >= 0 && y < reads.height;
      for (std::int64_t tx = 0; tx < cols; ++tx) {
        const std::int64_t x = first_x + tx;
        const auto value = inside && x >= 0 && x < reads.width
                               ? hn::LoadU(d, plane + (y * reads.width + x) * width)
                               : hn::Zero(d);
        hn::Store(value, d, packed + (c * reads.channel_stride() + reads.at(ty, tx)) * kLanesOf<D>);
      }
    }
  }
}

/// The tiles of a lattice of pixels, for each vector of each panel that has an image.
struct Tiles {
  std::int64_t height, width;  ///< of the lattice
  std::int64_t across, in_plane, vectors, count;
  bool half;  ///< the last vector has images in its first half alone
  template <class T>
  static Tiles make(std::int64_t height, std::int64_t width, const Panels<const T>& x) {
    Tiles tiles{};
    tiles.height = height;
    tiles.width = width;
    tiles.across = (width + kTileX - 1) / kTileX;
    tiles.in_plane = (height + kTileY - 1) / kTileY * tiles.across;
    tiles.vectors = x.width / kLanes<T>;
    if (x.batch == 0) return tiles;
    const std::int64_t last = x.count() - 1;
    tiles.count = tiles.in_plane * (last * tiles.vectors + lanes_used<T>(x, last) / kLanes<T>);
    const std::int64_t past = x.batch % kLanes<T>;
    tiles.half = kHalfVectors && past > 0 && 2 * past <= kLanes<T>;
    return tiles;
  }
  struct Place {
    std::int64_t panel, lane, y, x;
    bool half;
  };
  /// Tiles of one panel follow one another.
  template <class T>
  [[nodiscard]] Place place(std::int64_t tile) const {
    const std::int64_t in_panel = tile % (in_plane * vectors);
    const std::int64_t in_lattice = in_panel % in_plane;
    return {tile / (in_plane * vectors), in_panel / in_plane * kLanes<T>,
            in_lattice / across * kTileY, in_lattice % across * kTileX,
            half && tile + in_plane >= count};
  }
};

/// Calls `tile(d)` with the vectors of a place.
template <class T, class Tile>
HWY_INLINE void with_vectors(const Tiles::Place& at, const Tile& tile) {
  if constexpr (kHalfVectors) {
    if (at.half) return tile(hn::Half<Tag<T>>());
  }
  tile(Tag<T>());
}

/// Lanes of a panel up to the end of the last vector, or half of one, that has an image.
template <class T, class P>
std::int64_t lanes_in_tiles(const P& x, std::int64_t panel) {
  const std::int64_t used = lanes_used<T>(x, panel);
  const std::int64_t half = used - kLanes<T> / 2;
  return kHalfVectors && x.batch - panel * x.width <= half ? half : used;
}

/// Sets to 0 what no tile has written of the first `features`, as `lanes_used` wants it: those that
/// follow are not the caller's, who may have been given some planes of a layer's output.
template <class T>
void clear_rest(const Panels<T>& y, std::int64_t features, ThreadTeam& team) {
  const std::int64_t last = y.count() - 1;
  const std::int64_t used = y.batch == 0 ? y.width : lanes_in_tiles<T>(y, last);
  if (used == y.width) return;
  team.parallel_for(features, 1024, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t f = begin; f < end; ++f) {
      std::fill_n(y.panel(last) + f * y.width + used, y.width - used, T{0});
    }
  });
}

/// How a forward convolution reads its input.
inline TileReads forward_reads(const Window2d& w) {
  return {w.channels, w.in_height, w.in_width,      w.stride,
          -w.pad_top, -w.pad_left, w.kernel_height, w.kernel_width};
}

/// Where pixel (0, 0) of a tile finds each column of the filters.
inline std::vector<std::int64_t> column_places(const Window2d& w, const TileReads& reads) {
  std::vector<std::int64_t> places;
  for (std::int64_t c = 0; c < w.channels; ++c) {
    for (std::int64_t tap = 0; tap < w.taps(); ++tap) {
      places.push_back(c * reads.channel_stride() +
                       reads.at(tap / w.kernel_width, tap % w.kernel_width));
    }
  }
  return places;
}

/// The way back of a strided convolution: inputs whose places are equal modulo the stride form a
/// lattice, on which it is a convolution of the outputs with step 1 over some taps of the window.
struct BackReads {
  TileReads reads;
  std::int64_t phases;  ///< stride²
  BackReads(const Window2d& w, std::int64_t filters)
      : reads{filters,
              w.out_height,
              w.out_width,
              1,
              first(w.pad_top, w.kernel_height, w.stride),
              first(w.pad_left, w.kernel_width, w.stride),
              0,
              0},
        phases(w.stride * w.stride) {
    reads.taps_y = (w.stride - 1 + w.pad_top) / w.stride - reads.shift_y + 1;
    reads.taps_x = (w.stride - 1 + w.pad_left) / w.stride - reads.shift_x + 1;
  }

 private:
  /// The lowest output that reads input 0, which may lie outside: ⌊(pad − kernel + 1) / stride⌋.
  static std::int64_t first(std::int64_t pad, std::int64_t kernel, std::int64_t stride) {
    const std::int64_t reach = kernel - 1 - pad;
    return reach > 0 ? -((reach + stride - 1) / stride) : -reach / stride;
  }
};

/// One lattice of inputs, and the taps of the window that reach it.
struct Phase {
  std::int64_t py, px;                 ///< inputs (y · stride + py, x · stride + px)
  std::int64_t height, width;          ///< of the lattice
  std::vector<std::int64_t> taps, at;  ///< place in the window, and among the packed
  Phase(const Window2d& w, const TileReads& reads, std::int64_t index)
      : py(index / w.stride),
        px(index % w.stride),
        height((w.in_height - py + w.stride - 1) / w.stride),
        width((w.in_width - px + w.stride - 1) / w.stride) {
    for (std::int64_t ky = 0; ky < w.kernel_height; ++ky) {
      if ((py + w.pad_top + w.stride * w.kernel_height - ky) % w.stride != 0) continue;
      for (std::int64_t kx = 0; kx < w.kernel_width; ++kx) {
        if ((px + w.pad_left + w.stride * w.kernel_width - kx) % w.stride != 0) continue;
        taps.push_back(ky * w.kernel_width + kx);
        at.push_back(reads.at((py + w.pad_top - ky) / w.stride - reads.shift_y,
                              (px + w.pad_left - kx) / w.stride - reads.shift_x));
      }
    }
  }
};

/// y = h(sum + bias), one pixel of filter `row`.
template <class T>
struct StoreConv {
  const T* bias;
  T* y;  ///< panel of outputs, from the tile's lane on
  std::int64_t width, pixels, row_pixels;
  T lower, upper;
  template <class D>
  HWY_INLINE void operator()(D d, std::int64_t row, std::int64_t py, std::int64_t px,
                             hn::Vec<D> sum) const {
    const auto shifted = hn::Add(sum, hn::Set(d, bias[row]));
    hn::StoreU(hn::Min(hn::Max(shifted, hn::Set(d, lower)), hn::Set(d, upper)), d,
               y + (row * pixels + py * row_pixels + px) * width);
  }
};

/// dx = sum where x lies between its activation's bounds, one input of channel `row`.
template <class T>
struct StoreBack {
  const T* x;
  T* dx;  ///< panels, from the tile's lane on
  std::int64_t width, pixels, row_pixels, stride, py, px;
  T lower, upper;
  template <class D>
  HWY_INLINE void operator()(D d, std::int64_t row, std::int64_t y_at, std::int64_t x_at,
                             hn::Vec<D> sum) const {
    const std::int64_t at =
        (row * pixels + (y_at * stride + py) * row_pixels + x_at * stride + px) * width;
    const auto x_row = hn::LoadU(d, x + at);
    const auto inside = hn::And(hn::Gt(x_row, hn::Set(d, lower)), hn::Lt(x_row, hn::Set(d, upper)));
    hn::StoreU(hn::IfThenElseZero(inside, sum), d, dx + at);
  }
};

/// Runs `rows_of_tile(d, place, rows, packed)` for every tile, cut into runs of rows where there
/// are few tiles for the team.
template <class T, class RowsOfTile>
void for_each_tile(const TileReads& reads, const Tiles& tiles, const Panels<const T>& x,
                   std::int64_t rows, ThreadTeam& team, const RowsOfTile& rows_of_tile) {
  const std::int64_t wanted = 4 * std::int64_t{team.size()};
  const std::int64_t parts =
      team.size() == 1 || tiles.count >= wanted ? 1 : HWY_MIN(wanted, rows / 8 + 1);
  team.parallel_for(tiles.count * parts, 1, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
    T* packed = scratch<T>(reads.channels * reads.channel_stride() * kLanes<T>);
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const std::int64_t part = piece % parts;
      const Tiles::Place at = tiles.place<T>(piece / parts);
      const Range own = {rows * part / parts, rows * (part + 1) / parts};
      with_vectors<T>(at, [&](auto d) HWY_ATTR {
        pack_tile(d, reads, x.panel(at.panel), x.width, at.lane, at.y, at.x, packed);
        rows_of_tile(d, at, own, packed);
      });
    }
  });
}

/// db: each filter's sum over its plane and all images.
template <class T>
HWY_INLINE void sum_conv_bias(const Panels<const T>& dz, std::int64_t pixels, Range rows,
                              const ParameterGradient<T>& gradient) {
  const Tag<T> d;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    auto sum = hn::Zero(d);
    for (std::int64_t p = 0; p < dz.count(); ++p) {
      const T* from = dz.panel(p) + row * pixels * dz.width;
      const std::int64_t used = lanes_used<T>(dz, p);
      for (std::int64_t pixel = 0; pixel < pixels; ++pixel) {
        for (std::int64_t lane = 0; lane < used; lane += kLanes<T>) {
          sum = hn::Add(sum, hn::LoadU(d, from + pixel * dz.width + lane));
        }
      }
    }
    T& to = gradient.bias[row];
    to = (gradient.adds_up ? to : T{0}) + hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

/// The tile's gradients of one filter, 0 past the plane's ends.
template <class D, class T = hn::TFromD<D>>
HWY_INLINE void load_gradients(D d, const Panels<const T>& dz, const Window2d& w,
                               const Tiles::Place& at, std::int64_t row, hn::Vec<D>* to) {
  const T* plane = dz.panel(at.panel) + row * w.out_pixels() * dz.width + at.lane;
  for (int i = 0; i < kTileY; ++i) {
    for (int j = 0; j < kTileX; ++j) {
      const bool inside = at.y + i < w.out_height && at.x + j < w.out_width;
      to[i * kTileX + j] =
          inside ? hn::LoadU(d, plane + ((at.y + i) * w.out_width + at.x + j) * dz.width)
                 : hn::Zero(d);
    }
  }
}

}  // namespace spdnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
