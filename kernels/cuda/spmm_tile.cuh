// Device code of `spmm_tile`; mapping and costs are described in spmm_tile.cu.
#pragma once

#include "cuda/panel.cuh"
#include "cuda/tile_format.hpp"

namespace spdnn::cuda {

struct TileTraits {
  static constexpr int block = 256;  ///< threads
  static constexpr int warps = block / kWarp;
  static constexpr int blocks_per_sm = 2;  ///< one stages while the other computes
  static_assert(block % kWarp == 0 && block <= 1024);
  static_assert(kEntriesPerLoad * sizeof(std::uint16_t) == sizeof(uint4));
};

/// Copies the tile's input features of one panel to shared memory, `[footprint][P]`.
template <int V>
__device__ __forceinline__ void stage_footprint(float* staged, const TileView& format,
                                                const Tile& tile, const float* x, int warp,
                                                int lane) {
  constexpr int kWidth = kWarp * V;
  const std::uint32_t* features = format.footprint + tile.footprint_begin;
#pragma unroll 4
  for (int f = warp; f < tile.footprint_count; f += TileTraits::warps) {
    const std::size_t feature = __ldg(features + f);
    store(staged + f * kWidth + lane * V, load_constant<V>(x + feature * kWidth + lane * V));
  }
}

/// Weight j of the eight in two loads.
__device__ __forceinline__ float weight_of(const float4& low, const float4& high, int j) {
  const float4& four = j < 4 ? low : high;
  return j % 4 == 0 ? four.x : j % 4 == 1 ? four.y : j % 4 == 2 ? four.z : four.w;
}

/// Eight entries' indices and weights, the same for all lanes.
template <bool kSharedValue>
struct EightEntries {
  uint4 locals;
  float4 low{}, high{};
  __device__ __forceinline__ EightEntries(const TileView& format, std::int64_t entry)
      : locals(__ldg(reinterpret_cast<const uint4*>(format.local + entry))) {
    if constexpr (!kSharedValue) {
      low = __ldg(reinterpret_cast<const float4*>(format.values + entry));
      high = __ldg(reinterpret_cast<const float4*>(format.values + entry) + 1);
    }
  }
};

/// One output row for a panel's images. `staged` points at this lane's images of local feature 0.
/// All lanes load the same eight indices (and weights) at once: one broadcast for eight entries.
template <int V, bool kSharedValue>
__device__ __forceinline__ Lanes<V> tile_row_sum(const TileView& format, const TileRow& row,
                                                 const float* staged) {
  constexpr int kWidth = kWarp * V;
  Lanes<V> sum{};
  const float shared_weight = kSharedValue && row.count > 0 ? __ldg(format.values) : 0.0F;
  const auto add = [&](const EightEntries<kSharedValue>& entries, int j) {
    const float weight = kSharedValue ? shared_weight : weight_of(entries.low, entries.high, j);
    add_product(sum, weight, load<V>(staged + packed_index(entries.locals, j) * kWidth));
  };
  int k = 0;
  for (; k + kEntriesPerLoad <= row.count; k += kEntriesPerLoad) {
    const EightEntries<kSharedValue> entries(format, row.entry_begin + k);
#pragma unroll
    for (int j = 0; j < kEntriesPerLoad; ++j) add(entries, j);
  }
  if (k < row.count) {
    // The padding after a row's last entry is never multiplied: 0 · infinity is not 0.
    const EightEntries<kSharedValue> entries(format, row.entry_begin + k);
#pragma unroll
    for (int j = 0; j < kEntriesPerLoad - 1; ++j) {
      if (k + j < row.count) add(entries, j);
    }
  }
  return sum;
}

/// Grid of any size. Items are (panel, tile), the tiles of a panel side by side.
template <int V, bool kSharedValue>
__global__ void __launch_bounds__(TileTraits::block, TileTraits::blocks_per_sm)
    spmm_tile_kernel(SpmmKernelArgs args, TileView format) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  auto* staged = dynamic_shared<float>();
  const std::int64_t items = live_panels(args.x) * format.tile_count;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t panel = item / format.tile_count;
    const Tile tile = format.tiles[item - panel * format.tile_count];
    stage_footprint<V>(staged, format, tile, args.x.panel(panel), warp, lane);
    __syncthreads();
    float* y = args.y.panel(panel) + lane * V;
    unsigned nonzero = 0;
    for (int i = warp; i < tile.row_count; i += TileTraits::warps) {
      const TileRow row = format.rows[tile.row_begin + i];
      Lanes<V> sum = tile_row_sum<V, kSharedValue>(format, row, staged + lane * V);
      finish(sum, __ldg(args.bias.data + row.row * args.bias.stride), args.epilogue, nonzero);
      store(y + std::int64_t{row.row} * (kWarp * V), sum);
    }
    mark_alive<V>(args, panel, lane, nonzero);
    __syncthreads();  // before the next item's features replace these
  }
}

}  // namespace spdnn::cuda
