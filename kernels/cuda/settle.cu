// Images that need no layers of their own, dropped without a word from the host.
//
// Mapping: a thread a slot, or one of the wanted images. Bytes: 5 to 21 for each slot: its flags,
// its first equal, its id, and for those let go its parent or its mark; counts by one atomic a
// warp. What `find_equal` and `find_unchanged` read before is all that costs.
#include "cuda/cuda_kernels.hpp"
#include "cuda/launch.hpp"
#include "cuda/settle.cuh"

namespace spdnn {

void settle_cuda(const SettleArgs<float>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  if (args.x.batch == 0) return;
  const auto grid = [](std::int64_t items) {
    return cuda::grid_for(cuda::ceil_div(items, cuda::SettleTraits::block));
  };
  constexpr int kBlock = cuda::SettleTraits::block;
  if (args.first != nullptr) {
    cuda::launch(&cuda::merge_equal_kernel, grid(args.x.batch), kBlock, 0, native, args);
    cuda::check_launch("settle (equal)");
  }
  if (args.unchanged != nullptr) {
    if (args.wanted_count > 0) {
      cuda::launch(&cuda::mark_wanted_kernel, grid(args.wanted_count), kBlock, 0, native, args);
      cuda::check_launch("settle (wanted)");
    }
    cuda::launch(&cuda::finish_fixed_kernel, grid(args.x.batch), kBlock, 0, native, args);
    cuda::check_launch("settle (fixed)");
  }
}

}  // namespace spdnn
