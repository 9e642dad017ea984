// Expansion of sparse images into panels, and compaction of the living ones.
//
// expand: a warp an image, its lanes the nonzeros. Writes every byte of the panels once (zeroing)
// and touches one 32-byte sector for each nonzero. compact: CUB scans the flags into ranks, one
// kernel a thread a slot turns these into where each kept image comes from, another gathers,
// neighbouring lanes writing neighbouring images: 4 bytes read (from a sector shared with its
// neighbours that live) and 4 written for each feature of each kept image. The count never visits
// the host.
#include "cuda/cuda_kernels.hpp"
#include "cuda/launch.hpp"
#include "cuda/layout.cuh"
#include "cuda/scan.hpp"

namespace spdnn {
namespace {

using cuda::LayoutTraits;

void expand(const ExpandArgs<float>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  const std::int64_t size = args.y.size();
  if (size == 0) return;
  if (args.images.value_type != DType::f32) throw DeviceError("expand: images are not f32");
  stream.zero(args.y.data, static_cast<std::size_t>(size) * sizeof(float));
  if (args.images.nnz == 0) return;
  const unsigned grid = cuda::grid_for(cuda::ceil_div(args.images.rows, LayoutTraits::warps));
  cuda::with_index(args.images.index_type, [&](auto index) {
    cuda::launch(&cuda::expand_kernel<decltype(index)>, grid, LayoutTraits::block, 0, native,
                 args.images, args.y);
  });
  cuda::check_launch("expand");
}

/// ranks (batch + 1), source (batch) and the representative: what the workspace holds before CUB's
/// part.
std::int64_t map_entries(std::int64_t batch) { return 2 * batch + 2; }

std::size_t compact_workspace_bytes(std::int64_t batch) {
  return static_cast<std::size_t>(map_entries(batch)) * sizeof(std::int32_t) +
         cuda::scan_bytes(batch);
}

void compact(const CompactArgs<float>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  const std::int64_t batch = args.x.batch;
  auto* ranks = static_cast<std::int32_t*>(args.workspace);
  auto* source = ranks + batch + 1;
  auto* representative = source + batch;
  cuda::scan_living({args.alive, args.x}, ranks, ranks + map_entries(batch), native);

  const cuda::MapArgs map{args.x,       ranks,          args.ids, args.keep_representative,
                          args.parent,  representative, source,   args.ids_out + args.first_out,
                          args.live_out};
  const unsigned grid = cuda::grid_for(cuda::ceil_div(batch + 1, LayoutTraits::block));
  cuda::launch(&cuda::map_images_kernel, grid, LayoutTraits::block, 0, native, map);
  cuda::check_launch("compact (map)");
  if (args.keep_representative) {
    cuda::launch(&cuda::merge_dead_kernel, grid, LayoutTraits::block, 0, native, map);
    cuda::check_launch("compact (merge)");
  }
  const std::int64_t items =
      args.x.count() * cuda::ceil_div(args.x.features, LayoutTraits::features_per_block);
  if (items == 0) return;
  cuda::launch(&cuda::move_images_kernel, cuda::grid_for(items), LayoutTraits::block, 0, native,
               cuda::MoveArgs{args.x, args.y, args.first_out, source, args.live_out});
  cuda::check_launch("compact (move)");
}

}  // namespace

const LayoutKernels<float>& layout_cuda() {
  static const LayoutKernels<float> kernels{DeviceKind::cuda,
                                            &expand,
                                            &compact,
                                            &compact_workspace_bytes,
                                            &find_equal_cuda,
                                            &find_unchanged_cuda,
                                            &find_equal_workspace_bytes_cuda,
                                            &settle_cuda};
  return kernels;
}

}  // namespace spdnn
