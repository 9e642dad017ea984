// spmm_row_warp: any CSR matrix, straight from its arrays.
//
// Mapping: a warp owns an output row for the P images of a panel, lane l the P/32 images from
// l · P/32 on (float, float2 or float4). It loads 32 entries at once, coalesced, and hands each to
// all lanes by a shuffle; one gathered load of 4 · P bytes then feeds P/32 FMAs a lane. A warp
// takes up to 8 rows of a panel, so that the flags of living images are looked at once for all of
// them.
//
// Bytes: each entry reads 4 · P bytes of activations through L1 and its index (and value) once for
// each panel; each output writes 4 · P bytes. Device memory sees the activations about once where a
// panel of inputs (4 · P · cols) stays in L2. Bound: L1, one load a FMA.
//
// Wins where rows share few inputs, where they are too long for shared memory, and on small
// batches; needs no preparation, so also where weights are streamed and used once.
//
// Order: canonical.
#include "cuda/cuda_kernels.hpp"
#include "cuda/launch.hpp"
#include "cuda/spmm_row_warp.cuh"

namespace spdnn {
namespace {

using cuda::RowWarpTraits;

std::optional<std::string> declines(const SpmmShape& shape, const DeviceInfo& /*device*/) {
  return cuda::declines_common(shape);
}

void run(const SpmmArgs<float>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  const cuda::SpmmKernelArgs kernel = cuda::kernel_args(args, stream);
  const std::int64_t panels = args.x.count();
  const std::int64_t rows = kernel.csr.rows;
  if (rows == 0 || panels == 0) return;
  const int per_warp = cuda::pieces_per_warp(stream, rows * panels,
                                             RowWarpTraits::warps * RowWarpTraits::blocks_per_sm<2>,
                                             RowWarpTraits::max_rows_per_warp);
  const unsigned grid =
      cuda::grid_for(panels * cuda::ceil_div(rows, std::int64_t{RowWarpTraits::warps} * per_warp));
  cuda::with_width(args.x.width, [&](auto v) {
    cuda::with_index(kernel.csr.index_type, [&](auto index) {
      cuda::with_bool(kernel.csr.shared_value, [&](auto shared) {
        cuda::launch(&cuda::spmm_row_warp_kernel<decltype(v)::value, decltype(index),
                                                 decltype(shared)::value>,
                     grid, RowWarpTraits::block, 0, native, kernel, per_warp);
      });
    });
  });
  cuda::check_launch("spmm_row_warp");
}

}  // namespace

const SpmmKernel<float>& spmm_row_warp_cuda() {
  static const SpmmKernel<float> kernel{"spmm_row_warp", DeviceKind::cuda, Order::canonical,
                                        &declines,       &upload_csr,      &run};
  return kernel;
}

}  // namespace spdnn
