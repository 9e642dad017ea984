// Device code of `spmm_row_warp`; mapping and costs are described in spmm_row_warp.cu.
#pragma once

#include "cuda/panel.cuh"

namespace spdnn::cuda {

struct RowWarpTraits {
  static constexpr int block = 256;  ///< threads
  static constexpr int warps = block / kWarp;
  /// Blocks an SM must have registers for: 64 a thread, 80 where a lane holds four images.
  template <int V>
  static constexpr int blocks_per_sm = V == 4 ? 3 : 4;
  static constexpr int max_rows_per_warp = 8;  ///< rows that share one marking of living images
  static_assert(block % kWarp == 0 && block <= 1024);
  static_assert(block * blocks_per_sm<1> <= 2048, "threads an SM holds");
};

/// One output row for a panel's images. `x` points at this lane's images of feature 0.
template <int V, class Index, bool kSharedValue>
__device__ __forceinline__ Lanes<V> row_sum(const Index* cols, const float* values,
                                            std::int64_t begin, std::int64_t end, const float* x,
                                            int lane) {
  constexpr int kWidth = kWarp * V;
  Lanes<V> sum{};
  float weight = kSharedValue && begin < end ? __ldg(values) : 0.0F;
  for (std::int64_t k = begin; k < end; k += kWarp) {
    // Each lane fetches one entry; the warp then walks through them in stored order.
    const int count = end - k < kWarp ? static_cast<int>(end - k) : kWarp;
    const unsigned my_col = lane < count ? __ldg(cols + k + lane) : 0U;
    float my_weight = 0.0F;
    if constexpr (!kSharedValue) my_weight = lane < count ? __ldg(values + k + lane) : 0.0F;
    if (count == kWarp) {
#pragma unroll 8
      for (int j = 0; j < kWarp; ++j) {
        const unsigned col = __shfl_sync(kFullWarp, my_col, j);
        if constexpr (!kSharedValue) weight = __shfl_sync(kFullWarp, my_weight, j);
        add_product(sum, weight, load_constant<V>(x + std::size_t{col} * kWidth));
      }
    } else {
#pragma unroll 4
      for (int j = 0; j < count; ++j) {
        const unsigned col = __shfl_sync(kFullWarp, my_col, j);
        if constexpr (!kSharedValue) weight = __shfl_sync(kFullWarp, my_weight, j);
        add_product(sum, weight, load_constant<V>(x + std::size_t{col} * kWidth));
      }
    }
  }
  return sum;
}

/// Grid of any size. Items are (panel, group of rows), the groups of a panel side by side so that
/// blocks that run together read the same activations.
template <int V, class Index, bool kSharedValue>
__global__ void __launch_bounds__(RowWarpTraits::block, RowWarpTraits::blocks_per_sm<V>)
    spmm_row_warp_kernel(SpmmKernelArgs args, int rows_per_warp) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const auto* cols = static_cast<const Index*>(args.csr.col_indices);
  const auto* values = static_cast<const float*>(args.csr.values);
  const std::int64_t rows = args.csr.rows;
  const std::int64_t group_rows = std::int64_t{RowWarpTraits::warps} * rows_per_warp;
  const std::int64_t groups = (rows + group_rows - 1) / group_rows;
  const std::int64_t items = live_panels(args.x) * groups;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t panel = item / groups;
    const std::int64_t first_row = (item - panel * groups) * group_rows + warp;
    const float* x = args.x.panel(panel) + lane * V;
    float* y = args.y.panel(panel) + lane * V;
    unsigned nonzero = 0;
    for (int i = 0; i < rows_per_warp; ++i) {
      const std::int64_t row = first_row + std::int64_t{i} * RowWarpTraits::warps;
      if (row >= rows) break;
      Lanes<V> sum = row_sum<V, Index, kSharedValue>(cols, values, args.csr.row_begin(row),
                                                     args.csr.row_begin(row + 1), x, lane);
      finish(sum, __ldg(args.bias.data + row * args.bias.stride), args.epilogue, nonzero);
      store(y + row * (kWarp * V), sum);
    }
    mark_alive<V>(args, panel, lane, nonzero);
  }
}

}  // namespace spdnn::cuda
