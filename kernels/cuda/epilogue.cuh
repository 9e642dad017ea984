// The epilogue as a kernel of its own, for products that a library computed.
#pragma once

#include "cuda/panel.cuh"

namespace spdnn::cuda {

struct EpilogueTraits {
  static constexpr int block = 256;  ///< threads
  static constexpr int warps = block / kWarp;
  static constexpr int rows_per_warp = 8;  ///< that share one marking of living images
};

/// y ← h(product + b), where `product` is laid out as y and may be y. Grid of any size; a warp
/// takes a panel's images of several rows.
template <int V>
__global__ void __launch_bounds__(EpilogueTraits::block)
    epilogue_kernel(SpmmKernelArgs args, const float* product) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  constexpr std::int64_t kGroupRows = EpilogueTraits::warps * EpilogueTraits::rows_per_warp;
  const std::int64_t rows = args.csr.rows;
  const std::int64_t groups = (rows + kGroupRows - 1) / kGroupRows;
  const std::int64_t items = live_panels(args.y) * groups;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t panel = item / groups;
    const std::int64_t first_row = (item - panel * groups) * kGroupRows + warp;
    const std::int64_t panel_start = panel * rows * (kWarp * V) + lane * V;
    unsigned nonzero = 0;
    for (int i = 0; i < EpilogueTraits::rows_per_warp; ++i) {
      const std::int64_t row = first_row + std::int64_t{i} * EpilogueTraits::warps;
      if (row >= rows) break;
      const std::int64_t at = panel_start + row * (kWarp * V);
      Lanes<V> sum = load<V>(product + at);
      finish(sum, __ldg(args.bias.data + row * args.bias.stride), args.epilogue, nonzero);
      store(args.y.data + at, sum);
    }
    mark_alive<V>(args, panel, lane, nonzero);
  }
}

}  // namespace spdnn::cuda
