// The CUDA kernels that `tables.cpp` lists; usable without CUDA headers.
#pragma once

#include "spdnn/op.hpp"

namespace spdnn {

/// Images per panel the CUDA kernels are tuned for: two for each lane of a warp.
inline constexpr std::int64_t kCudaPanelWidth = 64;

/// General CSR; see spmm_row_warp.cu.
[[nodiscard]] const SpmmKernel<float>& spmm_row_warp_cuda();
/// Rows that share their columns together; see spmm_row_group.cu.
[[nodiscard]] const SpmmKernel<float>& spmm_row_group_cuda();
/// Inputs staged in shared memory; see spmm_tile.cu.
[[nodiscard]] const SpmmKernel<float>& spmm_tile_cuda();
/// The same on tensor cores, where the run's precision allows it; see spmm_block_mma.cu.
[[nodiscard]] const SpmmKernel<float>& spmm_block_mma_fp16();
[[nodiscard]] const SpmmKernel<float>& spmm_block_mma_tf32();
[[nodiscard]] const SpmmKernel<float>& spmm_block_mma_bf16();
/// NVIDIA's library with an epilogue kernel of our own; see spmm_cusparse.cu.
[[nodiscard]] const SpmmKernel<float>& spmm_cusparse();
/// The layer as a dense matrix, by cuBLAS; see spmm_dense.cu.
[[nodiscard]] const SpmmKernel<float>& spmm_dense();
[[nodiscard]] const SpmmKernel<float>& spmm_dense_tf32();
/// Serial sums in double; see spmm_reference.cu.
[[nodiscard]] const SpmmKernel<float>& spmm_reference_cuda();

/// Convolutions and poolings; see conv_tile.cu.
[[nodiscard]] const SpmmKernel<float>& conv_tile_cuda();
[[nodiscard]] const SpmmKernel<float>& pool_cuda();

/// Runs of layers with their activations on chip; see chain_resident.cu.
[[nodiscard]] const ChainKernel<float>& chain_resident_cuda();

/// Equal and unchanged images; see equal_images.cu.
void find_equal_cuda(const FindEqualArgs<float>& args, Stream& stream);
void find_unchanged_cuda(const FindUnchangedArgs<float>& args, Stream& stream);
/// unchanged ← 1 for every image of x, 0 past them.
void assume_unchanged_cuda(const Panels<const float>& x, std::uint8_t* unchanged, Stream& stream);
[[nodiscard]] std::size_t find_equal_workspace_bytes_cuda(std::int64_t batch);
/// Images let go on the device; see settle.cu.
void settle_cuda(const SettleArgs<float>& args, Stream& stream);

/// Expansion and compaction, and these; see layout.cu.
[[nodiscard]] const LayoutKernels<float>& layout_cuda();

}  // namespace spdnn
