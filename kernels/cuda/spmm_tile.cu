// spmm_tile: rows that share inputs, their inputs staged in shared memory.
//
// Mapping: a block owns a tile of up to 128 rows for the P images of a panel. It copies the tile's
// input features into shared memory once, `[features][P]`; then a warp owns a row at a time, lane l
// the P/32 images from l · P/32 on. Columns are 16-bit positions in the tile's list of features,
// eight to one 16-byte load that all lanes share. prepare() sorts rows so that those with equal
// columns fall into one tile, and closes a tile before its features pass half the shared memory a
// block may have (so that two blocks share an SM); a row that alone needs more gets up to all of
// it.
//
// Bytes: 4 · P for each feature of each tile from L2 or device memory, against 4 · P for each entry
// in spmm_row_warp; each entry reads 4 · P bytes of shared memory, 2 bytes of index and 0 or 4 of
// value for each panel; each output writes 4 · P bytes. Bound: shared memory, one load a FMA.
//
// Wins where a tile's rows use each of its features several times (structured and butterfly layers)
// and the weights are used often enough to pay for prepare(), which visits each entry twice on the
// host.
//
// Order: canonical.
#include <cstring>

#include "cuda/cuda_kernels.hpp"
#include "cuda/launch.hpp"
#include "cuda/spmm_tile.cuh"

namespace spdnn {
namespace {

using cuda::TileTraits;

/// Shared memory the system keeps for itself in each block (CUDA C++ Programming Guide, 8.0 on).
constexpr std::int64_t kReservedBytes = 1024;

std::int64_t bytes_per_feature(std::int64_t width) {
  return width * static_cast<std::int64_t>(sizeof(float));
}

std::optional<std::string> declines(const SpmmShape& shape, const DeviceInfo& device) {
  if (auto reason = cuda::declines_common(shape)) return reason;
  if (auto reason = cuda::declines_other_widths(shape)) return reason;
  const std::int64_t needed = shape.max_row_nnz * bytes_per_feature(shape.panel_width);
  if (needed > device.shared_bytes) {
    return "the longest row's " + std::to_string(shape.max_row_nnz) + " inputs take " +
           std::to_string(needed) + " bytes of shared memory; a block has " +
           std::to_string(device.shared_bytes);
  }
  return std::nullopt;
}

/// The tiles on the device.
struct DeviceTiles {
  Buffer tiles, footprint, rows, local, values;
  cuda::TileView view;
  std::int32_t max_footprint = 0;
};

PreparedWeights prepare(const CsrView& host, Device& device, Stream& stream) {
  const std::int64_t shared = device.info().shared_bytes;
  const std::int64_t per_feature = bytes_per_feature(kCudaPanelWidth);
  cuda::TileLimits limits;
  limits.most_features = shared / per_feature;
  limits.wanted_features =
      ((shared + kReservedBytes) / TileTraits::blocks_per_sm - kReservedBytes) / per_feature;
  const cuda::TileFormat format = cuda::build_tiles(host, limits);
  PreparedWeights prepared = upload_csr(host, device, stream);
  auto tiles = std::make_shared<DeviceTiles>();
  tiles->view.tiles = cuda::upload(format.tiles, tiles->tiles, device, stream);
  tiles->view.footprint = cuda::upload(format.footprint, tiles->footprint, device, stream);
  tiles->view.rows = cuda::upload(format.rows, tiles->rows, device, stream);
  tiles->view.local = cuda::upload(format.local, tiles->local, device, stream);
  tiles->view.values = cuda::upload(format.values, tiles->values, device, stream);
  tiles->view.tile_count = static_cast<std::int64_t>(format.tiles.size());
  tiles->max_footprint = format.max_footprint;
  stream.synchronize();  // the host arrays end here
  prepared.format = std::move(tiles);
  return prepared;
}

void run(const SpmmArgs<float>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  const cuda::SpmmKernelArgs kernel = cuda::kernel_args(args, stream);
  const auto& tiles = *static_cast<const DeviceTiles*>(args.weights->format.get());
  const std::int64_t items = args.x.count() * tiles.view.tile_count;
  if (items == 0) return;
  const auto shared_bytes = tiles.max_footprint * bytes_per_feature(args.x.width);
  cuda::with_width(args.x.width, [&](auto v) {
    cuda::with_bool(kernel.csr.shared_value, [&](auto shared) {
      auto* code = &cuda::spmm_tile_kernel<decltype(v)::value, decltype(shared)::value>;
      cuda::allow_shared(code, shared_bytes, "spmm_tile: asking for shared memory");
      cuda::launch(code, cuda::grid_for(items), TileTraits::block,
                   static_cast<std::size_t>(shared_bytes), native, kernel, tiles.view);
    });
  });
  cuda::check_launch("spmm_tile");
}

}  // namespace

const SpmmKernel<float>& spmm_tile_cuda() {
  static const SpmmKernel<float> kernel{"spmm_tile", DeviceKind::cuda, Order::canonical,
                                        &declines,   &prepare,         &run};
  return kernel;
}

}  // namespace spdnn
