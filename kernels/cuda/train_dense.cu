// Training's dense linear layers, in float and double, and stored in 16 bits.
//
// Mapping: forward and backward_data are one product, with W or its transpose: a block owns 8 rows
// for the 64 images of a panel, and its warps share what is summed over, 32 features at a time; a
// lane holds two images of all 8 rows. Each warp stages its weights in shared memory, one coalesced
// load a weight, and reads them back four at a time by all lanes alike, so that a load of a feature
// feeds 16 multiply–adds a lane. Then each warp adds up one row's parts, in the order of warps.
// backward_weights: a warp owns 4 × 4 gradients, the lanes the images; the 16 sums over the lanes
// take 16 shuffles together.
//
// Bytes, with s those of a number: for each 8 rows and panel, 64 · s for each feature; W once for
// each panel; backward_weights 8 · 64 · s for each 16 gradients and panel. Bound: shared memory and
// FMA about alike. As many blocks as rows / 8 for each panel: sums over few rows, as of a
// classifier, are still divided between the warps of a block.
//
// Wins where layers are full. Tensor cores would be faster at less precision.
//
// Order: fixed, and the same for every grid: equal arguments give equal bits.
#include "cuda/train_dense.cuh"
#include "cuda/train_kernels.hpp"
#include "cuda/train_launch.hpp"

namespace spdnn {
namespace {

using cuda::TrainDenseTraits;
using cuda::TrainTraits;

unsigned grid_of_groups(std::int64_t rows, std::int64_t panels) {
  return cuda::grid_for(cuda::ceil_div(rows, TrainDenseTraits::rows) * panels);
}

template <class T>
void forward(const ForwardArgs<T>& args, Stream& stream) {
  cuda::check_train_width(args.x.width);
  const PatternView& w = args.layer.pattern;
  const unsigned grid = grid_of_groups(w.rows, args.x.count());
  if (grid == 0) return;
  cuda::launch(&cuda::train_dense_forward_kernel<T>, grid, TrainTraits::block,
               TrainDenseTraits::shared_bytes<Wide<T>>, cuda::stream_of(stream),
               cuda::DenseView<T>{args.layer.values, w.rows, w.cols, w.cols, 1}, args.layer.bias,
               args.activation, args.x, args.y);
  cuda::check_launch("forward (dense)");
}

template <class T>
void backward_data(const BackwardDataArgs<T>& args, Stream& stream) {
  cuda::check_train_width(args.dz.width);
  const PatternView& w = args.layer.pattern;
  const unsigned grid = grid_of_groups(w.cols, args.dz.count());
  if (grid == 0) return;
  cuda::launch(&cuda::train_dense_backward_data_kernel<T>, grid, TrainTraits::block,
               TrainDenseTraits::shared_bytes<Wide<T>>, cuda::stream_of(stream),
               cuda::DenseView<T>{args.layer.values, w.cols, w.rows, 1, w.cols}, args.dz,
               args.activation, args.x, args.dx);
  cuda::check_launch("backward_data (dense)");
}

template <class T>
void backward_weights(const BackwardWeightsArgs<T>& args, Stream& stream) {
  cuda::check_train_width(args.dz.width);
  const PatternView& w = args.pattern;
  const std::int64_t tiles = cuda::ceil_div(w.rows, TrainDenseTraits::tile) *
                             cuda::ceil_div(w.cols, TrainDenseTraits::tile);
  if (tiles == 0) return;
  cuda::launch(&cuda::train_dense_backward_weights_kernel<T>,
               cuda::grid_for(cuda::ceil_div(tiles, TrainTraits::warps)), TrainTraits::block, 0,
               cuda::stream_of(stream), w.rows, w.cols, args.dz, args.x, args.gradient);
  cuda::check_launch("backward_weights (dense)");
}

}  // namespace

template <class T>
LinearKernels<T> train_dense_cuda() {
  return {&forward<T>, &backward_data<T>, &backward_weights<T>};
}

template LinearKernels<float> train_dense_cuda<float>();
template LinearKernels<double> train_dense_cuda<double>();
template LinearKernels<Half> train_dense_cuda<Half>();
template LinearKernels<Bfloat16> train_dense_cuda<Bfloat16>();

}  // namespace spdnn
