// spmm_block_mma_fp16, _tf32, _bf16: blocks of rows that share their columns, on tensor cores.
//
// Mapping: a warp owns a block of up to 16 rows with one list of columns for a panel of 64 images.
// Each step multiplies 16 rows × 8 (tf32) or 16 entries by 8 tiles of 8 images; a lane loads the
// features at its positions of the list for 8 images, 16 bytes at once, eight lanes a line, and
// holds 32 sums. Weights stand as the instruction wants them, 16 bytes a lane and step.
//
// Bytes: each entry of a list reads 256 bytes of activations through L1 and 4 of column for
// 16 · 64 edges, and 64 or 32 bytes of weights; each output writes 256 bytes. Bound: L1, one load
// for 16 edges. Blocks of fewer than 16 rows leave the rest of the unit idle.
//
// Wins where `precision` allows it and rows share long lists (block-sparse weights), so that the
// FMA units are what bounds spmm_row_group.
//
// fp16 splits both factors into two halves and multiplies three times: the first halves, and each
// first with the other's second one, whose product is added by a multiply–add a sum: one for every
// 16 of the edges that the FMA units would do themselves. Weights take 128 bytes for 16 · 64 edges.
//
// Order: other. Both factors are rounded to 22 (fp16), 11 or 8 bits, products are exact and sums
// fp32: |y − y64| ≤ (product_error + γ(nnz + 2)) · (|W||x| + |b|); for fp16, see there, with inputs
// up to 65504.
#include "cuda/cuda_kernels.hpp"
#include "cuda/launch.hpp"
#include "cuda/spmm_block_mma.cuh"

namespace spdnn {
namespace {

using cuda::BlockMmaTraits;
static_assert(BlockMmaTraits::width == kCudaPanelWidth);

template <class Kind>
std::optional<std::string> declines(const SpmmShape& shape, const DeviceInfo& /*device*/) {
  if (auto reason = cuda::declines_precision(shape, Kind::precision)) return reason;
  if (auto reason = cuda::declines_common(shape)) return reason;
  if (shape.max_row_nnz > 0x7fffffff - 64) return "a row has more than 2147483583 entries";
  return cuda::declines_other_widths(shape);
}

/// The blocks on the device.
struct DeviceBlocks {
  Buffer blocks, rows, columns, weights;
  cuda::MmaView view;
};

template <class Kind>
PreparedWeights prepare(const CsrView& host, Device& device, Stream& stream) {
  const cuda::MmaFormat format = cuda::build_mma<Kind>(host);
  PreparedWeights prepared = upload_csr(host, device, stream);
  auto form = std::make_shared<DeviceBlocks>();
  form->view.blocks = cuda::upload(format.blocks, form->blocks, device, stream);
  form->view.rows = cuda::upload(format.rows, form->rows, device, stream);
  form->view.columns = cuda::upload(format.columns, form->columns, device, stream);
  form->view.weights = cuda::upload(format.weights, form->weights, device, stream);
  form->view.block_count = std::ssize(format.blocks);
  form->view.unscale = format.unscale;
  stream.synchronize();  // the host arrays end here
  prepared.format = std::move(form);
  return prepared;
}

template <class Kind>
void run(const SpmmArgs<float>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  const cuda::SpmmKernelArgs kernel = cuda::kernel_args(args, stream);
  const auto& form = *static_cast<const DeviceBlocks*>(args.weights->format.get());
  const std::int64_t panels = args.x.count();
  const std::int64_t blocks = form.view.block_count;
  if (blocks == 0 || panels == 0) return;
  const int per_warp = cuda::pieces_per_warp(stream, blocks * panels,
                                             BlockMmaTraits::warps * BlockMmaTraits::blocks_per_sm,
                                             BlockMmaTraits::max_blocks_per_warp);
  const unsigned grid = cuda::grid_for(
      panels * cuda::ceil_div(blocks, std::int64_t{BlockMmaTraits::warps} * per_warp));
  cuda::launch(&cuda::spmm_block_mma_kernel<Kind>, grid, BlockMmaTraits::block, 0, native, kernel,
               form.view, per_warp);
  cuda::check_launch("spmm_block_mma");
}

template <class Kind>
const SpmmKernel<float>& kernel_named(std::string_view name) {
  static const SpmmKernel<float> kernel{
      name,           DeviceKind::cuda, Order::other,   &declines<Kind>,
      &prepare<Kind>, &run<Kind>,       Kind::precision};
  return kernel;
}

}  // namespace

const SpmmKernel<float>& spmm_block_mma_fp16() {
  return kernel_named<cuda::Fp16>("spmm_block_mma_fp16");
}

const SpmmKernel<float>& spmm_block_mma_tf32() {
  return kernel_named<cuda::Tf32>("spmm_block_mma_tf32");
}

const SpmmKernel<float>& spmm_block_mma_bf16() {
  return kernel_named<cuda::Bf16>("spmm_block_mma_bf16");
}

}  // namespace spdnn
