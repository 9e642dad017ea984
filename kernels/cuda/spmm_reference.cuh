// Device code of the CUDA reference: one thread an output, its sum serial and in double.
#pragma once

#include "cuda/panel.cuh"

namespace spdnn::cuda {

struct ReferenceTraits {
  static constexpr int block = 256;        ///< threads
  static constexpr int blocks_per_sm = 4;  ///< caps a thread at 64 registers
};

template <class Index, class Value>
__device__ __forceinline__ double reference_sum(const CsrView& csr, std::int64_t row,
                                                const float* x, std::int64_t width) {
  const auto* cols = static_cast<const Index*>(csr.col_indices);
  const auto* values = static_cast<const Value*>(csr.values);
  double sum = 0.0;
  for (std::int64_t k = csr.row_begin(row); k < csr.row_begin(row + 1); ++k) {
    const double weight = static_cast<double>(values[csr.shared_value ? 0 : k]);
    sum = __fma_rn(weight, static_cast<double>(x[std::int64_t{cols[k]} * width]), sum);
  }
  return sum;
}

/// Grid of any size; neighbouring threads hold neighbouring images of a row. Any panel width.
template <class Index, class Value>
__global__ void __launch_bounds__(ReferenceTraits::block, ReferenceTraits::blocks_per_sm)
    spmm_reference_kernel(SpmmKernelArgs args) {
  const std::int64_t width = args.x.width;
  const std::int64_t live = live_images(args.x);
  const std::int64_t outputs = live_panels(args.x) * args.csr.rows * width;
  const std::int64_t threads = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < outputs;
       i += threads) {
    const std::int64_t lane = i % width;
    const std::int64_t row = i / width % args.csr.rows;
    const std::int64_t panel = i / width / args.csr.rows;
    const std::int64_t image = panel * width + lane;
    if (image >= live) continue;
    const double sum =
        reference_sum<Index, Value>(args.csr, row, args.x.panel(panel) + lane, width) +
        static_cast<double>(args.bias.at(row));
    const float y = static_cast<float>(fmin(fmax(sum, static_cast<double>(args.epilogue.lower)),
                                            static_cast<double>(args.epilogue.upper)));
    args.y.panel(panel)[row * width + lane] = y;
    if (args.alive != nullptr && y != 0.0F) raise_flag(args.alive + image);
  }
}

}  // namespace spdnn::cuda
