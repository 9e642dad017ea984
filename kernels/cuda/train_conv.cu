// Training's convolutions, with sparse and dense filters, in float and double, and stored in 16
// bits.
//
// Mapping: forward and backward_data are one sum over planes: a warp owns a tile of 4 × 4 places of
// a plane for the 64 images of a panel, a lane two of them, whose sums stay in registers. Forward
// walks a filter's row, each lane finding the place of one entry for all of them; backward_data
// walks the columns of an input plane, place by place of the window, over values gathered into the
// order of columns first, and masks by the slope of the activation below as it stores.
// backward_weights: a block takes four entries of a filter at a time, its warps the lines of the
// output, the lanes the images; sums run over a warp's lines, then over lanes, then over warps.
//
// Bytes, with s those of a number: forward and backward_data read 64 · s for each entry and place
// that meets a plane, through L1, which the warps of a block share (neighbouring warps sum other
// planes from the same tile), and write 64 · s for each place; with a stride, backward_data reads
// at those places alone that a window's step meets. backward_weights reads 64 · s for each entry
// and place, and a quarter more for dZ. Bound: L1, one load for two multiply–adds.
//
// Wins where filters are sparse; it copies nothing into columns. Filters that are full run on the
// same code with rows that are not stored; they would want tensor cores.
//
// Order: fixed, and the same for every grid: equal arguments give equal bits.
#include "cuda/train_conv.cuh"
#include "cuda/train_kernels.hpp"
#include "cuda/train_launch.hpp"

namespace spdnn {
namespace {

using cuda::TrainConvTraits;
using cuda::TrainTraits;

/// Warps for a tile of each of so many planes.
unsigned grid_of_tiles(std::int64_t panels, std::int64_t planes, std::int64_t height,
                       std::int64_t width) {
  const std::int64_t tiles =
      cuda::ceil_div(height, TrainConvTraits::tile) * cuda::ceil_div(width, TrainConvTraits::tile);
  return cuda::grid_for(cuda::ceil_div(panels * planes * tiles, TrainTraits::warps));
}

template <class T, bool kDense>
void forward(const ForwardArgs<T>& args, Stream& stream) {
  cuda::check_train_width(args.x.width);
  const Window2d& w = args.window;
  const unsigned grid =
      grid_of_tiles(args.x.count(), args.layer.pattern.rows, w.out_height, w.out_width);
  if (grid == 0) return;
  cuda::launch(&cuda::train_conv_forward_kernel<T, kDense>, grid, TrainTraits::block, 0,
               cuda::stream_of(stream), args);
  cuda::check_launch("forward (convolution)");
}

template <class T, bool kDense>
void backward_data(const BackwardDataArgs<T>& args, Stream& stream) {
  cuda::check_train_width(args.dz.width);
  const Window2d& w = args.window;
  const unsigned grid = grid_of_tiles(args.dz.count(), w.channels, w.in_height, w.in_width);
  if (grid == 0) return;
  BackwardDataArgs<T> ordered = args;
  if (!kDense) {
    cuda::gather_values(args.layer, args.workspace, stream);
    ordered.layer.values = args.workspace;
  }
  cuda::launch(&cuda::train_conv_backward_data_kernel<T, kDense>, grid, TrainTraits::block, 0,
               cuda::stream_of(stream), ordered);
  cuda::check_launch("backward_data (convolution)");
}

template <class T, bool kDense>
void backward_weights(const BackwardWeightsArgs<T>& args, Stream& stream) {
  cuda::check_train_width(args.dz.width);
  const PatternView& p = args.pattern;
  if (p.rows == 0) return;
  // As many blocks for a filter as filters have groups of entries on average.
  const std::int64_t parts =
      std::max<std::int64_t>(cuda::ceil_div(p.nnz, p.rows * TrainConvTraits::entries), 1);
  cuda::launch(&cuda::train_conv_backward_weights_kernel<T, kDense>, cuda::grid_for(p.rows * parts),
               TrainTraits::block, TrainConvTraits::shared_bytes<Wide<T>>, cuda::stream_of(stream),
               args, parts);
  cuda::check_launch("backward_weights (convolution)");
}

}  // namespace

template <class T>
LinearKernels<T> train_sparse_conv_cuda() {
  return {&forward<T, false>, &backward_data<T, false>, &backward_weights<T, false>};
}

template <class T>
LinearKernels<T> train_dense_conv_cuda() {
  return {&forward<T, true>, &backward_data<T, true>, &backward_weights<T, true>};
}

template LinearKernels<float> train_sparse_conv_cuda<float>();
template LinearKernels<double> train_sparse_conv_cuda<double>();
template LinearKernels<Half> train_sparse_conv_cuda<Half>();
template LinearKernels<Bfloat16> train_sparse_conv_cuda<Bfloat16>();
template LinearKernels<float> train_dense_conv_cuda<float>();
template LinearKernels<double> train_dense_conv_cuda<double>();
template LinearKernels<Half> train_dense_conv_cuda<Half>();
template LinearKernels<Bfloat16> train_dense_conv_cuda<Bfloat16>();

}  // namespace spdnn
