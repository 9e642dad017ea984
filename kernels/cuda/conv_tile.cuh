// Device code of `conv_tile` and of pooling; mapping and costs are described in conv_tile.cu.
#pragma once

#include "cuda/panel.cuh"

namespace spdnn::cuda {

struct ConvTraits {
  static constexpr int block = 256;  ///< threads
  static constexpr int warps = block / kWarp;
  static constexpr int blocks_per_sm = 2;
  static constexpr int filters = 2;  ///< of a warp at a time
  static constexpr int block_filters = warps * filters;
  static constexpr int pool_block = 256;
  static_assert(block % kWarp == 0 && block <= 1024);
};

/// Pixels of a tile, and the inputs that it reads of one channel.
struct ConvTile {
  static constexpr int height = 4, width = 4;  ///< pixels
  int in_height, in_width;                     ///< inputs
  int stride;
  explicit ConvTile(const Window2d& w)
      : in_height(static_cast<int>((height - 1) * w.stride + w.kernel_height)),
        in_width(static_cast<int>((width - 1) * w.stride + w.kernel_width)),
        stride(static_cast<int>(w.stride)) {}
  [[nodiscard]] SPDNN_HOST_DEVICE int inputs() const { return in_height * in_width; }
};

/// A convolution as the kernel gets it.
struct ConvView {
  Window2d window;
  ConvTile tile;
  std::int64_t rows;       ///< filters
  int channels_per_chunk;  ///< staged together
  /// `most_inputs`: that fit into shared memory; at least one channel's.
  ConvView(const Window2d& w, std::int64_t filters, std::int64_t most_inputs)
      : window(w), tile(w), rows(filters) {
    const std::int64_t fit = most_inputs / tile.inputs();
    channels_per_chunk = static_cast<int>(fit < 1 ? 1 : fit < w.channels ? fit : w.channels);
  }
  [[nodiscard]] SPDNN_HOST_DEVICE std::int64_t tiles_across() const {
    return (window.out_width + ConvTile::width - 1) / ConvTile::width;
  }
  [[nodiscard]] SPDNN_HOST_DEVICE std::int64_t tiles() const {
    return (window.out_height + ConvTile::height - 1) / ConvTile::height * tiles_across();
  }
  [[nodiscard]] SPDNN_HOST_DEVICE std::int64_t groups() const {
    return (rows + ConvTraits::block_filters - 1) / ConvTraits::block_filters;
  }
  /// Where pixel (0, 0) finds column `col`, among the inputs of a chunk that begins with `first`.
  [[nodiscard]] __device__ int place(unsigned col, int first) const {
    const auto taps = static_cast<unsigned>(window.taps());
    const auto across = static_cast<unsigned>(window.kernel_width);
    const unsigned tap = col % taps;
    return (static_cast<int>(col / taps) - first) * tile.inputs() +
           static_cast<int>(tap / across) * tile.in_width + static_cast<int>(tap % across);
  }
};

/// Which tile of which panel, and which filters.
struct ConvItem {
  std::int64_t panel, first_row, y, x;
  __device__ __forceinline__ ConvItem(const ConvView& conv, std::int64_t item) {
    const std::int64_t tile = item / conv.groups() % conv.tiles();
    panel = item / conv.groups() / conv.tiles();
    first_row = item % conv.groups() * ConvTraits::block_filters;
    y = tile / conv.tiles_across() * ConvTile::height;
    x = tile % conv.tiles_across() * ConvTile::width;
  }
};

/// Copies what the tile reads of `channels` channels from `first` on to shared memory,
/// `[channel][in_height][in_width][P]`, with zeros outside of the planes.
template <int V>
__device__ __forceinline__ void stage_inputs(float* staged, const ConvView& conv,
                                             const ConvItem& item, int first, int channels,
                                             const float* x, int warp, int lane) {
  constexpr int kWidth = kWarp * V;
  const Window2d& w = conv.window;
  const std::int64_t top = item.y * w.stride - w.pad_top;
  const std::int64_t left = item.x * w.stride - w.pad_left;
  const int inputs = channels * conv.tile.inputs();
  for (int i = warp; i < inputs; i += ConvTraits::warps) {
    const int in_tile = i % conv.tile.inputs();
    const std::int64_t channel = first + i / conv.tile.inputs();
    const std::int64_t y = top + in_tile / conv.tile.in_width;
    const std::int64_t col = left + in_tile % conv.tile.in_width;
    Lanes<V> value{};
    if (y >= 0 && y < w.in_height && col >= 0 && col < w.in_width) {
      const std::int64_t feature = (channel * w.in_height + y) * w.in_width + col;
      value = load_constant<V>(x + feature * kWidth + lane * V);
    }
    store(staged + i * kWidth + lane * V, value);
  }
}

template <int V>
struct TileSums {
  Lanes<V> pixel[ConvTile::height][ConvTile::width];
};

/// weight · x for each pixel; `from` points at this lane's images of what pixel (0, 0) meets.
template <int V>
__device__ __forceinline__ void add_entry(TileSums<V>& sums, const ConvTile& tile, float weight,
                                          const float* from) {
#pragma unroll
  for (int i = 0; i < ConvTile::height; ++i) {
#pragma unroll
    for (int j = 0; j < ConvTile::width; ++j) {
      const int at = (i * tile.in_width + j) * tile.stride;
      add_product(sums.pixel[i][j], weight, load<V>(from + at * (kWarp * V)));
    }
  }
}

/// Adds a row's entries from k on whose columns lie below `past`, a warp's width at a time: each
/// lane finds one entry's place, and hands it round. Returns the first entry left.
template <int V, class Index>
__device__ __forceinline__ std::int64_t add_chunk(TileSums<V>& sums, const CsrView& csr,
                                                  const ConvView& conv, int first, unsigned past,
                                                  std::int64_t k, std::int64_t end,
                                                  const float* staged, int lane) {
  const auto* cols = static_cast<const Index*>(csr.col_indices);
  const auto* values = static_cast<const float*>(csr.values);
  int count = kWarp;
  while (count == kWarp) {
    const std::int64_t mine = k + lane;
    const unsigned col = mine < end ? unsigned{__ldg(cols + mine)} : past;
    const bool here = col < past;
    const int my_place = here ? conv.place(col, first) : 0;
    const float my_weight = here ? __ldg(values + (csr.shared_value ? 0 : mine)) : 0.0F;
    count = __popc(__ballot_sync(kFullWarp, here));
    for (int j = 0; j < count; ++j) {
      const int place = __shfl_sync(kFullWarp, my_place, j);
      const float weight = __shfl_sync(kFullWarp, my_weight, j);
      add_entry(sums, conv.tile, weight, staged + place * (kWarp * V));
    }
    k += count;
  }
  return k;
}

/// Bias, activation and stores of a row's pixels that lie within the plane.
template <int V>
__device__ __forceinline__ void store_pixels(TileSums<V>& sums, const SpmmKernelArgs& args,
                                             const ConvView& conv, const ConvItem& item,
                                             std::int64_t row, int lane, unsigned& nonzero) {
  constexpr int kWidth = kWarp * V;
  const Window2d& w = conv.window;
  const float bias = __ldg(args.bias.data + row * args.bias.stride);
  float* y = args.y.panel(item.panel) + row * w.out_pixels() * kWidth + lane * V;
#pragma unroll
  for (int i = 0; i < ConvTile::height; ++i) {
#pragma unroll
    for (int j = 0; j < ConvTile::width; ++j) {
      if (item.y + i >= w.out_height || item.x + j >= w.out_width) continue;
      finish(sums.pixel[i][j], bias, args.epilogue, nonzero);
      store(y + ((item.y + i) * w.out_width + item.x + j) * kWidth, sums.pixel[i][j]);
    }
  }
}

/// Grid of any size. Items are (panel, tile, group of filters), the groups of a tile side by side.
template <int V, class Index>
__global__ void __launch_bounds__(ConvTraits::block, ConvTraits::blocks_per_sm)
    conv_tile_kernel(SpmmKernelArgs args, ConvView conv) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  auto* staged = dynamic_shared<float>();
  const auto channels = static_cast<int>(conv.window.channels);
  const std::int64_t items = live_panels(args.x) * conv.tiles() * conv.groups();
  for (std::int64_t i = blockIdx.x; i < items; i += gridDim.x) {
    const ConvItem item(conv, i);
    const std::int64_t row = item.first_row + warp * ConvTraits::filters;
    TileSums<V> sums[ConvTraits::filters] = {};
    std::int64_t next[ConvTraits::filters];
#pragma unroll
    for (int f = 0; f < ConvTraits::filters; ++f) {
      next[f] = row + f < conv.rows ? args.csr.row_begin(row + f) : 0;
    }
    for (int first = 0; first < channels; first += conv.channels_per_chunk) {
      const int left = channels - first;
      const int staged_channels = left < conv.channels_per_chunk ? left : conv.channels_per_chunk;
      const auto past = static_cast<unsigned>((first + staged_channels) * conv.window.taps());
      __syncthreads();  // before these inputs replace the last ones
      stage_inputs<V>(staged, conv, item, first, staged_channels, args.x.panel(item.panel), warp,
                      lane);
      __syncthreads();
#pragma unroll
      for (int f = 0; f < ConvTraits::filters; ++f) {
        if (row + f >= conv.rows) continue;
        next[f] = add_chunk<V, Index>(sums[f], args.csr, conv, first, past, next[f],
                                      args.csr.row_begin(row + f + 1), staged + lane * V, lane);
      }
    }
    unsigned nonzero = 0;
#pragma unroll
    for (int f = 0; f < ConvTraits::filters; ++f) {
      if (row + f >= conv.rows) continue;
      store_pixels<V>(sums[f], args, conv, item, row + f, lane, nonzero);
    }
    mark_alive<V>(args, item.panel, lane, nonzero);
  }
}

/// Grid of any size. A warp owns an output of a panel, lane l its images from l · V on.
template <int V>
__global__ void __launch_bounds__(ConvTraits::pool_block)
    pool_kernel(SpmmKernelArgs args, LayerKind kind, Window2d w) {
  constexpr int kWidth = kWarp * V;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const std::int64_t outputs = w.channels * w.out_pixels();
  const std::int64_t items = live_panels(args.x) * outputs;
  const std::int64_t warps = std::int64_t{gridDim.x} * (ConvTraits::pool_block / kWarp);
  for (std::int64_t item =
           (std::int64_t{blockIdx.x} * ConvTraits::pool_block + threadIdx.x) / kWarp;
       item < items; item += warps) {
    const std::int64_t panel = item / outputs;
    const std::int64_t output = item % outputs;
    const std::int64_t top = output % w.out_pixels() / w.out_width * w.stride - w.pad_top;
    const std::int64_t left = output % w.out_width * w.stride - w.pad_left;
    const float* plane =
        args.x.panel(panel) + output / w.out_pixels() * w.in_pixels() * kWidth + lane * V;
    Lanes<V> result{};
    int inputs = 0;
    for (std::int64_t y = top < 0 ? 0 : top; y < top + w.kernel_height && y < w.in_height; ++y) {
      for (std::int64_t x = left < 0 ? 0 : left; x < left + w.kernel_width && x < w.in_width; ++x) {
        const Lanes<V> in = load_constant<V>(plane + (y * w.in_width + x) * kWidth);
#pragma unroll
        for (int i = 0; i < V; ++i) {
          const bool take = inputs == 0 || in.v[i] > result.v[i];
          result.v[i] = kind == LayerKind::average_pool ? result.v[i] + in.v[i]
                        : take                          ? in.v[i]
                                                        : result.v[i];
        }
        ++inputs;
      }
    }
    unsigned nonzero = 0;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if (kind == LayerKind::average_pool) {
        result.v[i] = result.v[i] / static_cast<float>(inputs);
      }
      nonzero |= result.v[i] != 0.0F ? 1U << i : 0U;
    }
    store(args.y.panel(panel) + output * kWidth + lane * V, result);
    mark_alive<V>(args, panel, lane, nonzero);
  }
}

}  // namespace spdnn::cuda
