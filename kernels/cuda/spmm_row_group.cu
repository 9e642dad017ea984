// spmm_row_group: rows that share their list of columns, computed together.
//
// Mapping: a warp owns a block of 16, 8, 4, 2 or 1 rows with one list of columns (see
// row_blocks.hpp) for the P images of a panel, lane l the P/32 images from l · P/32 on. It loads 32
// columns at once, coalesced, and hands each to all lanes by a shuffle; one gathered load of 4 · P
// bytes then feeds P/32 FMAs a lane in each row of the block. prepare() finds the groups and puts
// blocks that read neighbouring inputs side by side, so that the warps of a thread block meet in
// L1.
//
// Bytes: for a block of R rows, each entry of the list reads 4 · P bytes of activations through L1
// and 2 or 4 bytes of column for R · P edges, and 4 · R bytes of values where they differ; each
// output writes 4 · P bytes. Bound: at R = 16 the FMA units (32 of them for one load and two
// instructions of address at P = 64), as long as L2 delivers 4 · P bytes for each list that reads a
// feature; at R = 1 it is spmm_row_warp.
//
// Wins where rows repeat lists (layers made of dense blocks, the Graph Challenge's among them).
//
// Order: canonical.
#include "cuda/cuda_kernels.hpp"
#include "cuda/launch.hpp"
#include "cuda/spmm_row_group.cuh"

namespace spdnn {
namespace {

using cuda::RowGroupTraits;

std::optional<std::string> declines(const SpmmShape& shape, const DeviceInfo& /*device*/) {
  if (auto reason = cuda::declines_common(shape)) return reason;
  return cuda::declines_other_widths(shape);
}

/// The row blocks on the device.
struct DeviceGroups {
  Buffer blocks, rows, values;
  cuda::RowGroupView view;
};

PreparedWeights prepare(const CsrView& host, Device& device, Stream& stream) {
  const cuda::RowBlocks made = cuda::make_row_blocks(host, cuda::kMostBlockRows);
  PreparedWeights prepared = upload_csr(host, device, stream);
  auto form = std::make_shared<DeviceGroups>();
  form->view.blocks = cuda::upload(made.blocks, form->blocks, device, stream);
  form->view.rows = cuda::upload(made.rows, form->rows, device, stream);
  form->view.values = cuda::upload(made.values, form->values, device, stream);
  form->view.block_count = std::ssize(made.blocks);
  stream.synchronize();  // the host arrays end here
  prepared.format = std::move(form);
  return prepared;
}

void run(const SpmmArgs<float>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  const cuda::SpmmKernelArgs kernel = cuda::kernel_args(args, stream);
  const auto& groups = *static_cast<const DeviceGroups*>(args.weights->format.get());
  const std::int64_t panels = args.x.count();
  const std::int64_t blocks = groups.view.block_count;
  if (blocks == 0 || panels == 0) return;
  constexpr int kV = kCudaPanelWidth / cuda::kWarp;
  const int per_warp = cuda::pieces_per_warp(stream, blocks * panels,
                                             RowGroupTraits::warps * RowGroupTraits::blocks_per_sm,
                                             RowGroupTraits::max_blocks_per_warp);
  const unsigned grid = cuda::grid_for(
      panels * cuda::ceil_div(blocks, std::int64_t{RowGroupTraits::warps} * per_warp));
  cuda::with_index(kernel.csr.index_type, [&](auto index) {
    cuda::with_bool(kernel.csr.shared_value, [&](auto shared) {
      cuda::launch(&cuda::spmm_row_group_kernel<kV, decltype(index), decltype(shared)::value>, grid,
                   RowGroupTraits::block, 0, native, kernel, groups.view, per_warp);
    });
  });
  cuda::check_launch("spmm_row_group");
}

}  // namespace

const SpmmKernel<float>& spmm_row_group_cuda() {
  static const SpmmKernel<float> kernel{"spmm_row_group", DeviceKind::cuda, Order::canonical,
                                        &declines,        &prepare,         &run};
  return kernel;
}

}  // namespace spdnn
