// Device code of `spmm_row_group`; mapping and costs are described in spmm_row_group.cu.
#pragma once

#include "cuda/panel.cuh"
#include "cuda/row_blocks.hpp"

namespace spdnn::cuda {

struct RowGroupTraits {
  static constexpr int block = 256;  ///< threads
  static constexpr int warps = block / kWarp;
  /// Blocks an SM must have registers for: 128 a thread.
  static constexpr int blocks_per_sm = 2;
  static constexpr int max_blocks_per_warp =
      4;  ///< row blocks that share one marking of the living
  static_assert(block % kWarp == 0 && block <= 1024);
};

/// A layer's row blocks in device memory. Lists and the values of single rows are the matrix's own.
struct RowGroupView {
  const RowBlock* blocks = nullptr;
  const std::uint32_t* rows = nullptr;
  const float* values = nullptr;  ///< interleaved `[entry][row]`
  std::int64_t block_count = 0;
  /// 0, which the compiler can't know. With one shared value the rows of a group have equal sums,
  /// and it would compute one of them for all. Leaving out equal rows is the network compiler's
  /// task; the edges counted as executed are executed.
  unsigned zero = 0;
};

/// The sums of R rows that share a list, for a panel's images. `x` points at this lane's images of
/// feature 0, `cols` and `values` at the list's first entry.
template <int R, int V, bool kSharedValue, class Index>
__device__ __forceinline__ void group_sums(Lanes<V> (&sums)[R], const Index* cols,
                                           const float* values, std::int64_t entries,
                                           const float* x, int lane) {
  constexpr int kWidth = kWarp * V;
  float weights[R];
#pragma unroll
  for (float& weight : weights) weight = kSharedValue && entries > 0 ? __ldg(values) : 0.0F;
  const auto add = [&](unsigned col, std::int64_t entry) {
    const Lanes<V> in = load_constant<V>(x + std::size_t{col} * kWidth);
    if constexpr (!kSharedValue) load_weights<true>(weights, values + entry * R);
#pragma unroll
    for (int r = 0; r < R; ++r) add_product(sums[r], weights[r], in);
  };
  for (std::int64_t k = 0; k < entries; k += kWarp) {
    // Each lane fetches one column; the warp then walks through them in stored order.
    const int count = entries - k < kWarp ? static_cast<int>(entries - k) : kWarp;
    const unsigned my_col = lane < count ? __ldg(cols + k + lane) : 0U;
#pragma unroll 4
    for (int j = 0; j < count; ++j) add(__shfl_sync(kFullWarp, my_col, j), k + j);
  }
}

/// One block of R rows: sums, epilogue and outputs. Sets the bits of the lane's images with any.
template <int R, int V, bool kSharedValue, class Index>
__device__ __forceinline__ void compute_block(const SpmmKernelArgs& args,
                                              const RowGroupView& format, const RowBlock& block,
                                              const float* x, float* y, int lane,
                                              unsigned& nonzero) {
  const auto* cols = static_cast<const Index*>(args.csr.col_indices) + block.list;
  const auto* csr_values = static_cast<const float*>(args.csr.values);
  const float* values = kSharedValue ? csr_values
                        : R == 1     ? csr_values + block.list
                                     : format.values + block.values;
  Lanes<V> sums[R];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const float zero = kSharedValue ? __uint_as_float(format.zero & 1U << r) : 0.0F;
#pragma unroll
    for (float& sum : sums[r].v) sum = zero;
  }
  group_sums<R, V, kSharedValue>(sums, cols, values, block.entries, x, lane);
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const std::uint32_t row = __ldg(format.rows + block.first + r);
    finish(sums[r], __ldg(args.bias.data + row * args.bias.stride), args.epilogue, nonzero);
    store(y + std::int64_t{row} * (kWarp * V), sums[r]);
  }
}

/// Grid of any size. Items are (panel, run of row blocks), the runs of a panel side by side so that
/// blocks that run together read the same activations.
template <int V, class Index, bool kSharedValue>
__global__ void __launch_bounds__(RowGroupTraits::block, RowGroupTraits::blocks_per_sm)
    spmm_row_group_kernel(SpmmKernelArgs args, RowGroupView format, int blocks_per_warp) {
  static_assert(kMostBlockRows == 16, "the sizes below");
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const std::int64_t run_blocks = std::int64_t{RowGroupTraits::warps} * blocks_per_warp;
  const std::int64_t runs = (format.block_count + run_blocks - 1) / run_blocks;
  const std::int64_t items = live_panels(args.x) * runs;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t panel = item / runs;
    const std::int64_t first = (item - panel * runs) * run_blocks + warp;
    const float* x = args.x.panel(panel) + lane * V;
    float* y = args.y.panel(panel) + lane * V;
    unsigned nonzero = 0;
    const auto compute = [&](auto rows, const RowBlock& block) {
      compute_block<decltype(rows)::value, V, kSharedValue, Index>(args, format, block, x, y, lane,
                                                                   nonzero);
    };
    for (int i = 0; i < blocks_per_warp; ++i) {
      const std::int64_t index = first + std::int64_t{i} * RowGroupTraits::warps;
      if (index >= format.block_count) break;
      const RowBlock block = format.blocks[index];
      switch (block.rows) {
        case 16: compute(std::integral_constant<int, 16>{}, block); break;
        case 8: compute(std::integral_constant<int, 8>{}, block); break;
        case 4: compute(std::integral_constant<int, 4>{}, block); break;
        case 2: compute(std::integral_constant<int, 2>{}, block); break;
        default: compute(std::integral_constant<int, 1>{}, block);
      }
    }
    mark_alive<V>(args, panel, lane, nonzero);
  }
}

}  // namespace spdnn::cuda
