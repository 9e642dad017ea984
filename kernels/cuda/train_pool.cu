// Training's poolings, largest and mean, in float and double.
//
// Mapping: a warp owns an output of a panel's 64 images, on the way back an input; a lane two
// images. backward looks at every window that holds its input: a mean hands back its part, and the
// largest is found again, so that nothing is kept from the way forward and nothing is added up by
// several threads.
//
// Bytes, with s those of a number: forward reads 64 · s for each place of a window; backward
// 64 · s for each window that holds an input, and of the largest for each place of that window
// again, through L1. Wins as the only one; windows that do not overlap, which are usual, cost an
// input taps + 1 loads.
//
// Order: fixed.
#include "cuda/train_kernels.hpp"
#include "cuda/train_launch.hpp"
#include "cuda/train_pool.cuh"

namespace spdnn {

using cuda::TrainTraits;

template <class T>
void pool_forward_cuda(const PoolForwardArgs<T>& args, Stream& stream) {
  cuda::check_train_width(args.x.width);
  const std::int64_t items = args.y.count() * args.y.features;
  if (items == 0) return;
  cuda::launch(&cuda::train_pool_forward_kernel<T>,
               cuda::grid_for(cuda::ceil_div(items, TrainTraits::warps)), TrainTraits::block, 0,
               cuda::stream_of(stream), args);
  cuda::check_launch("forward (pooling)");
}

template <class T>
void pool_backward_cuda(const PoolBackwardArgs<T>& args, Stream& stream) {
  cuda::check_train_width(args.x.width);
  const std::int64_t items = args.x.count() * args.x.features;
  if (items == 0) return;
  cuda::launch(&cuda::train_pool_backward_kernel<T>,
               cuda::grid_for(cuda::ceil_div(items, TrainTraits::warps)), TrainTraits::block, 0,
               cuda::stream_of(stream), args);
  cuda::check_launch("backward (pooling)");
}

template void pool_forward_cuda<float>(const PoolForwardArgs<float>&, Stream&);
template void pool_forward_cuda<double>(const PoolForwardArgs<double>&, Stream&);
template void pool_forward_cuda<Half>(const PoolForwardArgs<Half>&, Stream&);
template void pool_forward_cuda<Bfloat16>(const PoolForwardArgs<Bfloat16>&, Stream&);
template void pool_backward_cuda<float>(const PoolBackwardArgs<float>&, Stream&);
template void pool_backward_cuda<double>(const PoolBackwardArgs<double>&, Stream&);
template void pool_backward_cuda<Half>(const PoolBackwardArgs<Half>&, Stream&);
template void pool_backward_cuda<Bfloat16>(const PoolBackwardArgs<Bfloat16>&, Stream&);

}  // namespace spdnn
