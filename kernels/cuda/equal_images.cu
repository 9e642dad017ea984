// Equal images, and images that a layer left as they were.
//
// find_equal: a block hashes 128 features of a panel, neighbouring lanes neighbouring images, and
// adds to the images' hashes; a thread an image enters it in a table and looks up the lowest slot
// of its hash; then both are compared. Bytes: 4 for each feature of each image to hash, and for
// each that found another the same again, with a 32-byte sector for the other's feature; 8 an image
// for hashes, 8 to 16 for the table. No round trip to the host. An image whose hash is that of a
// lower slot it does not equal (once in 2⁶⁴) equals none.
//
// find_unchanged: 8 bytes for each feature of each image.
#include <bit>

#include "cuda/cuda_kernels.hpp"
#include "cuda/equal_images.cuh"
#include "cuda/launch.hpp"

namespace spdnn {
namespace {

using cuda::EqualTraits;

std::int64_t table_slots(std::int64_t batch) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(batch) * 2 + 1));
}

unsigned grid_of_runs(const Panels<const float>& x) {
  return cuda::grid_for(x.count() * cuda::ceil_div(x.features, EqualTraits::features_per_block));
}

unsigned grid_of_images(const Panels<const float>& x) {
  return cuda::grid_for(cuda::ceil_div(x.batch, EqualTraits::block));
}

}  // namespace

std::size_t find_equal_workspace_bytes_cuda(std::int64_t batch) {
  return static_cast<std::size_t>(batch) * sizeof(cuda::HashWord) +
         static_cast<std::size_t>(table_slots(batch)) * sizeof(std::int32_t);
}

void find_equal_cuda(const FindEqualArgs<float>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  const std::int64_t batch = args.x.batch;
  if (batch == 0) return;
  auto* hashes = static_cast<cuda::HashWord*>(args.workspace);
  auto* table = reinterpret_cast<std::int32_t*>(hashes + batch);
  const cuda::EqualArgs equal{args.x, args.alive, args.first, hashes, table, table_slots(batch)};
  stream.zero(hashes, static_cast<std::size_t>(batch) * sizeof(cuda::HashWord));
  const unsigned images = grid_of_images(args.x);
  cuda::launch(&cuda::empty_table_kernel, images, EqualTraits::block, 0, native, equal);
  if (const unsigned runs = grid_of_runs(args.x); runs > 0) {
    cuda::launch(&cuda::hash_images_kernel, runs, EqualTraits::block, 0, native, equal);
  }
  cuda::launch(&cuda::enter_images_kernel, images, EqualTraits::block, 0, native, equal);
  cuda::launch(&cuda::look_up_kernel, images, EqualTraits::block, 0, native, equal);
  if (const unsigned runs = grid_of_runs(args.x); runs > 0) {
    cuda::launch(&cuda::compare_images_kernel, runs, EqualTraits::block, 0, native, equal);
  }
  cuda::check_launch("find_equal");
}

void assume_unchanged_cuda(const Panels<const float>& x, std::uint8_t* unchanged, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  if (x.batch == 0) return;
  cuda::launch(&cuda::assume_unchanged_kernel, grid_of_images(x), EqualTraits::block, 0, native,
               cuda::UnchangedArgs{x, x, unchanged});
  cuda::check_launch("find_unchanged");
}

void find_unchanged_cuda(const FindUnchangedArgs<float>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  if (args.x.batch == 0) return;
  const cuda::UnchangedArgs unchanged{args.x, args.y, args.unchanged};
  assume_unchanged_cuda(args.x, args.unchanged, stream);
  if (const unsigned runs = grid_of_runs(args.x); runs > 0) {
    cuda::launch(&cuda::clear_changed_kernel, runs, EqualTraits::block, 0, native, unchanged);
  }
  cuda::check_launch("find_unchanged");
}

}  // namespace spdnn
