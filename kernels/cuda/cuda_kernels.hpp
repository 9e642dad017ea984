// The CUDA kernels that `tables.cpp` lists; usable without CUDA headers.
#pragma once

#include "spdnn/op.hpp"

namespace spdnn {

/// Images per panel the CUDA kernels are tuned for: two for each lane of a warp.
inline constexpr std::int64_t kCudaPanelWidth = 64;

/// General CSR; see spmm_row_warp.cu.
[[nodiscard]] const SpmmKernel<float>& spmm_row_warp_cuda();
/// Inputs staged in shared memory; see spmm_tile.cu.
[[nodiscard]] const SpmmKernel<float>& spmm_tile_cuda();
/// NVIDIA's library with an epilogue kernel of our own; see spmm_cusparse.cu.
[[nodiscard]] const SpmmKernel<float>& spmm_cusparse();
/// Serial sums in double; see spmm_reference.cu.
[[nodiscard]] const SpmmKernel<float>& spmm_reference_cuda();

/// Expansion and compaction; see layout.cu.
[[nodiscard]] const LayoutKernels<float>& layout_cuda();

}  // namespace spdnn
