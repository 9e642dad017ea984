// conv_tile: sparse filters on tiles of output pixels, their inputs staged in shared memory; and
// pooling.
//
// Mapping: a block owns 4 × 4 pixels of 16 filters for the P images of a panel. It copies what the
// tile reads of as many channels as fit in 47 KiB of shared memory, with zeros outside of the
// planes, and each warp adds the entries that two filters have in those channels: one broadcast
// weight and place, then a load and a FMA for each of 16 pixels, whose sums stay in registers from
// chunk to chunk. Lane l holds the P/32 images from l · P/32 on. Pooling: a warp owns an output.
//
// Bytes: 4 · P for each input that a tile reads, once for 16 filters, from L2; each entry and pixel
// reads 4 · P bytes of shared memory, each entry and tile 8 of place and value. Bound: shared
// memory, one load a FMA. Wins where filters are sparse; filters that are full would want tensor
// cores.
//
// Order: canonical, since chunks are summed in the order of columns, which must ascend.
#include "cuda/conv_tile.cuh"
#include "cuda/cuda_kernels.hpp"
#include "cuda/launch.hpp"

namespace spdnn {
namespace {

using cuda::ConvTraits;

/// Shared memory that every GPU since compute capability 7.0 has, for two blocks of an SM.
constexpr std::int64_t kSharedBytes = std::int64_t{96} << 10;
constexpr std::int64_t kReservedBytes = 1024;  // of a block, for the system

std::int64_t bytes_per_input() { return kCudaPanelWidth * std::int64_t{sizeof(float)}; }

std::optional<std::string> declines(const SpmmShape& shape, const DeviceInfo& device) {
  if (shape.kind != LayerKind::conv2d) return "the layer is no convolution";
  if (auto reason = cuda::declines_common(shape)) return reason;
  if (auto reason = cuda::declines_other_widths(shape)) return reason;
  const std::int64_t needed = cuda::ConvTile(shape.window).inputs() * bytes_per_input();
  if (needed > device.shared_bytes) {
    return "a tile's inputs of one channel take " + std::to_string(needed) +
           " bytes of shared memory; a block has " + std::to_string(device.shared_bytes);
  }
  return std::nullopt;
}

/// Chunks are summed in the order of columns, so that a row's order must be theirs.
PreparedWeights prepare(const CsrView& host, Device& device, Stream& stream) {
  for (std::int64_t row = 0; row < host.rows; ++row) {
    for (std::int64_t k = host.row_begin(row) + 1; k < host.row_begin(row + 1); ++k) {
      if (host.col(k) > host.col(k - 1)) continue;
      throw InputError("columns of filter " + std::to_string(row + 1) +
                       " do not ascend, which kernels of CUDA devices need; sort the entries of "
                       "each row by column");
    }
  }
  return upload_csr(host, device, stream);
}

void run(const SpmmArgs<float>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  const cuda::SpmmKernelArgs kernel = cuda::kernel_args(args, stream);
  const cuda::ConvTile tile(args.window);
  const std::int64_t per_channel = tile.inputs() * bytes_per_input();
  const std::int64_t half = kSharedBytes / ConvTraits::blocks_per_sm - kReservedBytes;
  const cuda::ConvView conv(args.window, kernel.csr.rows,
                            std::max(half, per_channel) / bytes_per_input());
  const std::int64_t items = args.x.count() * conv.tiles() * conv.groups();
  if (items == 0) return;
  const auto shared_bytes = static_cast<std::size_t>(conv.channels_per_chunk * per_channel);
  cuda::with_index(kernel.csr.index_type, [&](auto index) {
    auto* code = &cuda::conv_tile_kernel<kCudaPanelWidth / cuda::kWarp, decltype(index)>;
    cuda::allow_shared(code, static_cast<std::int64_t>(shared_bytes),
                       "conv_tile: asking for shared memory");
    cuda::launch(code, cuda::grid_for(items), ConvTraits::block, shared_bytes, native, kernel,
                 conv);
  });
  cuda::check_launch("conv_tile");
}

std::optional<std::string> declines_pool(const SpmmShape& shape, const DeviceInfo& /*device*/) {
  if (shape.kind != LayerKind::max_pool && shape.kind != LayerKind::average_pool) {
    return "the layer is no pooling";
  }
  return cuda::declines_other_widths(shape);
}

void run_pool(const SpmmArgs<float>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  const cuda::SpmmKernelArgs kernel = cuda::kernel_args(args, stream);
  const std::int64_t outputs = args.x.count() * args.window.channels * args.window.out_pixels();
  if (outputs == 0) return;
  const unsigned grid =
      cuda::grid_for(cuda::ceil_div(outputs, ConvTraits::pool_block / cuda::kWarp));
  cuda::launch(&cuda::pool_kernel<kCudaPanelWidth / cuda::kWarp>, grid, ConvTraits::pool_block, 0,
               native, kernel, args.kind, args.window);
  cuda::check_launch("pool");
}

}  // namespace

const SpmmKernel<float>& conv_tile_cuda() {
  static const SpmmKernel<float> kernel{"conv_tile", DeviceKind::cuda, Order::canonical,
                                        &declines,   &prepare,         &run};
  return kernel;
}

const SpmmKernel<float>& pool_cuda() {
  static const SpmmKernel<float> kernel{"pool",         DeviceKind::cuda, Order::canonical,
                                        &declines_pool, &upload_csr,      &run_pool};
  return kernel;
}
}  // namespace spdnn
