// Device code of training's convolutions; mapping and costs are described in train_conv.cu.
#pragma once

#include "cuda/train_lanes.cuh"

namespace spdnn::cuda {

struct TrainConvTraits {
  static constexpr int tile = 4;     ///< places a side, of one plane, that a warp sums up
  static constexpr int entries = 4;  ///< whose gradients a block sums side by side
  /// Shared memory of a block that sums gradients of type T.
  template <class T>
  static constexpr std::size_t shared_bytes = TrainTraits::warps* entries * sizeof(T);
};

/// What a warp computes: a tile of one plane, for the images of a panel.
struct PlaneTile {
  std::int64_t panel, plane;
  int y, x;  ///< the tile's first place

  /// Tiles of `planes` planes of height · width, the planes of a tile side by side.
  __device__ __forceinline__ PlaneTile(std::int64_t item, std::int64_t planes, std::int64_t height,
                                       std::int64_t width) {
    constexpr int kTile = TrainConvTraits::tile;
    const std::int64_t across = (width + kTile - 1) / kTile;
    const std::int64_t tiles = (height + kTile - 1) / kTile * across;
    plane = item % planes;
    const std::int64_t tile = item / planes % tiles;
    panel = item / planes / tiles;
    y = static_cast<int>(tile / across) * kTile;
    x = static_cast<int>(tile % across) * kTile;
  }
};

/// Which lines of another plane the lines of a tile meet under one place of the window; −1: none.
struct Lines {
  int y[TrainConvTraits::tile], x[TrainConvTraits::tile];
};

/// A tile's sums, two images of each place.
template <class T>
struct PlaneSums {
  Pair<T> at[TrainConvTraits::tile][TrainConvTraits::tile];
};

/// weight · plane for each place; `plane` points at the lane's images of its first place.
template <class T>
__device__ __forceinline__ void add_plane(PlaneSums<Wide<T>>& sums, Wide<T> weight, const T* plane,
                                          const Lines& lines, std::int64_t across) {
#pragma unroll
  for (int i = 0; i < TrainConvTraits::tile; ++i) {
    if (lines.y[i] < 0) continue;
    const T* line = plane + lines.y[i] * across * TrainTraits::width;
#pragma unroll
    for (int j = 0; j < TrainConvTraits::tile; ++j) {
      if (lines.x[j] < 0) continue;
      add_product(sums.at[i][j], weight, load_pair(line + lines.x[j] * TrainTraits::width));
    }
  }
}

/// Calls `body(sums, offset)` for every place of the tile that lies in the plane, with where in the
/// plane its images are.
template <class T, class Body>
__device__ __forceinline__ void for_each_place(PlaneSums<T>& sums, const PlaneTile& tile,
                                               std::int64_t height, std::int64_t width,
                                               const Body& body) {
#pragma unroll
  for (int i = 0; i < TrainConvTraits::tile; ++i) {
#pragma unroll
    for (int j = 0; j < TrainConvTraits::tile; ++j) {
      if (tile.y + i >= height || tile.x + j >= width) continue;
      body(sums.at[i][j], ((tile.y + i) * width + tile.x + j) * TrainTraits::width);
    }
  }
}

/// The warp's number in the grid, and warps in the grid.
__device__ __forceinline__ std::int64_t grid_warp() {
  return std::int64_t{blockIdx.x} * TrainTraits::warps + threadIdx.x / kWarp;
}
__device__ __forceinline__ std::int64_t grid_warps() {
  return std::int64_t{gridDim.x} * TrainTraits::warps;
}

/// Where a column of the filters is in the window.
struct Tap {
  int channel, y, x;
  __device__ __forceinline__ Tap(const Window2d& w, unsigned col) {
    const auto taps = static_cast<unsigned>(w.taps());
    const auto across = static_cast<unsigned>(w.kernel_width);
    channel = static_cast<int>(col / taps);
    y = static_cast<int>(col % taps / across);
    x = static_cast<int>(col % taps % across);
  }
};

/// The input's lines that a tile of outputs meets at (tap_y, tap_x) of the window.
__device__ __forceinline__ Lines input_lines(const Window2d& w, const PlaneTile& tile, int tap_y,
                                             int tap_x) {
  Lines lines;
#pragma unroll
  for (int i = 0; i < TrainConvTraits::tile; ++i) {
    const std::int64_t y = (tile.y + i) * w.stride + tap_y - w.pad_top;
    const std::int64_t x = (tile.x + i) * w.stride + tap_x - w.pad_left;
    lines.y[i] = y >= 0 && y < w.in_height ? static_cast<int>(y) : -1;
    lines.x[i] = x >= 0 && x < w.in_width ? static_cast<int>(x) : -1;
  }
  return lines;
}

/// The line of outputs that meets an input, `at` from where its first one lies; −1: none.
__device__ __forceinline__ int output_line(std::int64_t at, std::int64_t stride,
                                           std::int64_t count) {
  return at >= 0 && at % stride == 0 && at / stride < count ? static_cast<int>(at / stride) : -1;
}

/// The output's lines that a tile of inputs meets at (tap_y, tap_x) of the window.
__device__ __forceinline__ Lines output_lines(const Window2d& w, const PlaneTile& tile, int tap_y,
                                              int tap_x) {
  Lines lines;
#pragma unroll
  for (int i = 0; i < TrainConvTraits::tile; ++i) {
    lines.y[i] = output_line(tile.y + i + w.pad_top - tap_y, w.stride, w.out_height);
    lines.x[i] = output_line(tile.x + i + w.pad_left - tap_x, w.stride, w.out_width);
  }
  return lines;
}

/// y ← h(W · x + b). Grid of any size; a warp owns a tile of an output plane. Each lane looks up an
/// entry's place, and hands it round.
template <class T, bool kDense>
__global__ void __launch_bounds__(TrainTraits::block, 1)
    train_conv_forward_kernel(ForwardArgs<T> args) {
  const Window2d& w = args.window;
  const PatternView& pattern = args.layer.pattern;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const std::int64_t tiles = (w.out_height + TrainConvTraits::tile - 1) / TrainConvTraits::tile *
                             ((w.out_width + TrainConvTraits::tile - 1) / TrainConvTraits::tile);
  const std::int64_t items = args.x.count() * tiles * pattern.rows;
  for (std::int64_t item = grid_warp(); item < items; item += grid_warps()) {
    const PlaneTile tile(item, pattern.rows, w.out_height, w.out_width);
    const T* x = args.x.panel(tile.panel) + lane * TrainTraits::images;
    const std::int64_t begin = kDense ? tile.plane * pattern.cols : pattern.row_offsets[tile.plane];
    const std::int64_t end = kDense ? begin + pattern.cols : pattern.row_offsets[tile.plane + 1];
    PlaneSums<Wide<T>> sums{};
    for (std::int64_t k = begin; k < end; k += kWarp) {
      const std::int64_t mine = k + lane < end ? k + lane : end - 1;
      const Tap tap(w, kDense ? static_cast<unsigned>(mine - begin) : pattern.col_indices[mine]);
      const Wide<T> weight = args.layer.values[mine];
      const int count = end - k < kWarp ? static_cast<int>(end - k) : kWarp;
#pragma unroll 1
      for (int e = 0; e < count; ++e) {
        const int tap_y = __shfl_sync(kFullWarp, tap.y, e);
        const int tap_x = __shfl_sync(kFullWarp, tap.x, e);
        const std::int64_t channel = __shfl_sync(kFullWarp, tap.channel, e);
        add_plane(sums, __shfl_sync(kFullWarp, weight, e),
                  x + channel * w.in_pixels() * TrainTraits::width,
                  input_lines(w, tile, tap_y, tap_x), w.in_width);
      }
    }
    const Wide<T> bias = args.layer.bias[tile.plane];
    T* y = args.y.panel(tile.panel) + tile.plane * w.out_pixels() * TrainTraits::width +
           lane * TrainTraits::images;
    for_each_place(sums, tile, w.out_height, w.out_width, [&](Pair<Wide<T>>& sum, std::int64_t at) {
      store_activated(sum, bias, args.activation, y + at);
    });
  }
}

/// dx ← (Wᵀ · dz) where x lies between the bounds of the activation that made it, else 0. The
/// layer's values stand in the order of columns where there is a pattern. Grid of any size; a warp
/// owns a tile of an input plane.
template <class T, bool kDense>
__global__ void __launch_bounds__(TrainTraits::block)
    train_conv_backward_data_kernel(BackwardDataArgs<T> args) {
  const Window2d& w = args.window;
  const PatternView& pattern = args.layer.pattern;
  const std::int64_t lane = threadIdx.x % kWarp * TrainTraits::images;
  const std::int64_t tiles = (w.in_height + TrainConvTraits::tile - 1) / TrainConvTraits::tile *
                             ((w.in_width + TrainConvTraits::tile - 1) / TrainConvTraits::tile);
  const std::int64_t items = args.dz.count() * tiles * w.channels;
  for (std::int64_t item = grid_warp(); item < items; item += grid_warps()) {
    const PlaneTile tile(item, w.channels, w.in_height, w.in_width);
    const T* dz = args.dz.panel(tile.panel) + lane;
    PlaneSums<Wide<T>> sums{};
#pragma unroll 1
    for (std::int64_t tap = 0; tap < w.taps(); ++tap) {
      const Lines lines = output_lines(w, tile, static_cast<int>(tap / w.kernel_width),
                                       static_cast<int>(tap % w.kernel_width));
      const std::int64_t col = tile.plane * w.taps() + tap;
      const std::int64_t begin = kDense ? 0 : pattern.col_offsets[col];
      const std::int64_t end = kDense ? pattern.rows : pattern.col_offsets[col + 1];
#pragma unroll 1
      for (std::int64_t k = begin; k < end; ++k) {
        const std::int64_t row = kDense ? k : std::int64_t{pattern.row_indices[k]};
        const Wide<T> weight = args.layer.values[kDense ? row * pattern.cols + col : k];
        add_plane(sums, weight, dz + row * w.out_pixels() * TrainTraits::width, lines, w.out_width);
      }
    }
    const std::int64_t first = tile.plane * w.in_pixels() * TrainTraits::width + lane;
    const T* x = args.x.panel(tile.panel) + first;
    T* dx = args.dx.panel(tile.panel) + first;
    for_each_place(sums, tile, w.in_height, w.in_width, [&](Pair<Wide<T>>& sum, std::int64_t at) {
      store_masked(sum, load_pair(x + at), args.activation, dx + at);
    });
  }
}

/// The sums of all warps' `values`, each in a lane of its own from the first thread on; `parts` has
/// room for those of all warps. All threads of the block meet here; those of other threads are 0.
template <class T, int kCount>
__device__ __forceinline__ T block_sums(T (&values)[kCount], T* parts) {
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const T own = warp_sums(values);
  if (lane % (kWarp / kCount) == 0) parts[warp * kCount + sum_held_by<kCount>(lane)] = own;
  __syncthreads();
  T sum = T{0};
  if (threadIdx.x < kCount) {
#pragma unroll
    for (int i = 0; i < TrainTraits::warps; ++i) sum += parts[i * kCount + threadIdx.x];
  }
  __syncthreads();
  return sum;
}

/// Calls `body(panel, y)` for the lines of outputs of all panels that are the warp's.
template <class Body>
__device__ __forceinline__ void for_each_line(const Window2d& w, std::int64_t panels,
                                              const Body& body) {
  const std::int64_t lines = panels * w.out_height;
  for (std::int64_t i = threadIdx.x / kWarp; i < lines; i += TrainTraits::warps) {
    body(i / w.out_height, i % w.out_height);
  }
}

/// Adds one line's products of an output plane and the planes that `kCount` entries read. `x` and
/// `dz` point at the lane's images of the panel.
template <class T, int kCount>
__device__ __forceinline__ void add_line(Wide<T> (&sums)[kCount], const Window2d& w,
                                         const Tap* const (&taps)[kCount], std::int64_t y,
                                         const T* x, const T* dz) {
  const T* lines[kCount];
#pragma unroll
  for (int e = 0; e < kCount; ++e) {
    const std::int64_t in_y = y * w.stride + taps[e]->y - w.pad_top;
    lines[e] = in_y < 0 || in_y >= w.in_height
                   ? nullptr
                   : x + (taps[e]->channel * w.in_height + in_y) * w.in_width * TrainTraits::width;
  }
  const T* from = dz + y * w.out_width * TrainTraits::width;
#pragma unroll 1
  for (std::int64_t out_x = 0; out_x < w.out_width; ++out_x) {
    const Pair<Wide<T>> slope = load_pair(from + out_x * TrainTraits::width);
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      const std::int64_t in_x = out_x * w.stride + taps[e]->x - w.pad_left;
      if (lines[e] == nullptr || in_x < 0 || in_x >= w.in_width) continue;
      const Pair<Wide<T>> in = load_pair(lines[e] + in_x * TrainTraits::width);
      sums[e] += slope.v[0] * in.v[0];
      sums[e] += slope.v[1] * in.v[1];
    }
  }
}

/// gradient.values ← the products of dz and x on the pattern, gradient.bias ← the sums of dz.
/// `parts` blocks share a filter; grid of any size.
template <class T, bool kDense>
__global__ void __launch_bounds__(TrainTraits::block)
    train_conv_backward_weights_kernel(BackwardWeightsArgs<T> args, std::int64_t parts) {
  constexpr int kEntries = TrainConvTraits::entries;
  const Window2d& w = args.window;
  const PatternView& pattern = args.pattern;
  const std::int64_t lane = threadIdx.x % kWarp * TrainTraits::images;
  auto* shared = dynamic_shared<Wide<T>>();
  for (std::int64_t item = blockIdx.x; item < pattern.rows * parts; item += gridDim.x) {
    const std::int64_t row = item / parts;
    const std::int64_t part = item % parts;
    const std::int64_t plane = row * w.out_pixels() * TrainTraits::width + lane;
    const std::int64_t begin = kDense ? row * pattern.cols : pattern.row_offsets[row];
    const std::int64_t end = kDense ? begin + pattern.cols : pattern.row_offsets[row + 1];
    for (std::int64_t k = begin + part * kEntries; k < end; k += parts * kEntries) {
      // Past the end the last entry stands in, whose sum is not stored again.
      const auto tap_of = [&](int e) {
        const std::int64_t entry = k + e < end ? k + e : end - 1;
        return Tap(w, kDense ? static_cast<unsigned>(entry - begin) : pattern.col_indices[entry]);
      };
      const Tap own[kEntries] = {tap_of(0), tap_of(1), tap_of(2), tap_of(3)};
      const Tap* const taps[kEntries] = {own, own + 1, own + 2, own + 3};
      Wide<T> sums[kEntries] = {};
      for_each_line(w, args.x.count(), [&](std::int64_t panel, std::int64_t y) {
        add_line(sums, w, taps, y, args.x.panel(panel) + lane, args.dz.panel(panel) + plane);
      });
      const Wide<T> sum = block_sums(sums, shared);
      if (threadIdx.x < kEntries && k + threadIdx.x < end) {
        put_sum(sum, args.gradient.adds_up, args.gradient.values + k + threadIdx.x);
      }
    }
    if (part != 0) continue;
    Wide<T> bias[1] = {};
    for_each_line(w, args.x.count(), [&](std::int64_t panel, std::int64_t y) {
      const T* from = args.dz.panel(panel) + plane + y * w.out_width * TrainTraits::width;
#pragma unroll 1
      for (std::int64_t x = 0; x < w.out_width; ++x) {
        const Pair<Wide<T>> pair = load_pair(from + x * TrainTraits::width);
        bias[0] += pair.v[0];
        bias[0] += pair.v[1];
      }
    });
    const Wide<T> sum = block_sums(bias, shared);
    if (threadIdx.x == 0) put_sum(sum, args.gradient.adds_up, args.gradient.bias + row);
  }
}

}  // namespace spdnn::cuda
