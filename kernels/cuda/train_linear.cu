// Training's sparse linear layers, in float and double, and stored in 16 bits.
//
// Mapping: forward and backward_data are one sum over lists, of W by rows and of W by columns: a
// warp owns a list for the 64 images of a panel, a lane two of them, so that one load of a feature
// (512 or 256 bytes a warp) feeds two multiply–adds a lane. backward_data first gathers the values
// into the order of columns, and masks by the slope of the activation below as it stores.
// backward_weights samples dZ · Xᵀ on the pattern by rows: a block owns a row, a warp eight of its
// entries at a time, the lanes the images; sums run over the panels, then over the lanes, for eight
// entries together in nine shuffles.
//
// Bytes, with s those of a number: forward and backward_data read 64 · s for each entry and panel
// through L1 and write 64 · s for each output; gathering reads 4 + s and writes s for each entry;
// backward_weights reads 64 · s for each entry and panel, and an eighth more for dZ. Bound: L1, one
// load for two multiply–adds.
//
// Wins on patterns too sparse for dense products, which is what it is for; see train_dense.cu.
//
// Order: fixed, and the same for every grid: equal arguments give equal bits.
#include "cuda/train_kernels.hpp"
#include "cuda/train_launch.hpp"
#include "cuda/train_linear.cuh"

namespace spdnn {
namespace {

using cuda::TrainTraits;

/// W by rows.
template <class T>
cuda::ListView<T> rows_of(const PatternView& w, const T* values) {
  return {w.row_offsets, w.col_indices, values, w.rows};
}

/// W by columns, whose values stand in that order in `values`.
template <class T>
cuda::ListView<T> columns_of(const PatternView& w, const T* values) {
  return {w.col_offsets, w.row_indices, values, w.cols};
}

unsigned grid_of_lists(std::int64_t lists, std::int64_t panels) {
  return cuda::grid_for(cuda::ceil_div(lists * panels, TrainTraits::warps));
}

template <class T>
void forward(const ForwardArgs<T>& args, Stream& stream) {
  cuda::check_train_width(args.x.width);
  const cuda::NativeStream native = cuda::stream_of(stream);
  const PatternView& w = args.layer.pattern;
  const unsigned grid = grid_of_lists(w.rows, args.x.count());
  if (grid == 0) return;
  cuda::launch(&cuda::train_forward_kernel<T>, grid, TrainTraits::block, 0, native,
               rows_of(w, args.layer.values), args.layer.bias, args.activation, args.x, args.y);
  cuda::check_launch("forward");
}

template <class T>
void backward_data(const BackwardDataArgs<T>& args, Stream& stream) {
  cuda::check_train_width(args.dz.width);
  const cuda::NativeStream native = cuda::stream_of(stream);
  const PatternView& w = args.layer.pattern;
  const unsigned grid = grid_of_lists(w.cols, args.dz.count());
  if (grid == 0) return;
  cuda::gather_values(args.layer, args.workspace, stream);
  cuda::launch(&cuda::train_backward_data_kernel<T>, grid, TrainTraits::block, 0, native,
               columns_of<T>(w, args.workspace), args.dz, args.activation, args.x, args.dx);
  cuda::check_launch("backward_data");
}

template <class T>
void backward_weights(const BackwardWeightsArgs<T>& args, Stream& stream) {
  cuda::check_train_width(args.dz.width);
  const cuda::NativeStream native = cuda::stream_of(stream);
  const PatternView& w = args.pattern;
  if (w.rows == 0) return;
  cuda::launch(&cuda::train_backward_weights_kernel<T>, cuda::grid_for(w.rows), TrainTraits::block,
               0, native, rows_of<T>(w, nullptr), args.dz, args.x, args.gradient);
  cuda::check_launch("backward_weights");
}

}  // namespace

template <class T>
LinearKernels<T> train_sparse_cuda() {
  return {&forward<T>, &backward_data<T>, &backward_weights<T>};
}

template LinearKernels<float> train_sparse_cuda<float>();
template LinearKernels<double> train_sparse_cuda<double>();
template LinearKernels<Half> train_sparse_cuda<Half>();
template LinearKernels<Bfloat16> train_sparse_cuda<Bfloat16>();

}  // namespace spdnn
