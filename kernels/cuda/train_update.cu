// Losses, optimisers' steps and norms of training, in float and double, and of 16 bits losses,
// copies and what decides on a scaled loss.
//
// Mapping: an optimiser's step takes a thread some parameters, a grid apart. A loss and its parts
// take a thread an image, neighbouring threads neighbouring images; it is summed by one block, in a
// tree over its threads: a classifier's loss is ten outputs an image. A norm is summed by up to 512
// blocks, and their parts by one more: one order, whatever the device. It stays on the device,
// where the step reads it and clips.
//
// Bytes, with s those of a number: a step reads and writes the parameter and each array of state
// once, and reads the gradient (3 · s for sgd to 7 · s for adam); a loss reads the outputs three
// times, from L1 or L2 after the first, and writes them once; a norm reads s for each element.
//
// Order: fixed.
#include "cuda/launch.hpp"
#include "cuda/train_kernels.hpp"
#include "cuda/train_update.cuh"

namespace spdnn {

using cuda::UpdateTraits;

namespace {
constexpr std::size_t kSharedBytes = UpdateTraits::reduce_block * sizeof(double);
}  // namespace

template <class T>
void loss_part_cuda(const LossArgs<T>& args, Stream& stream) {
  if (args.y.batch == 0) return;
  cuda::launch(&cuda::loss_part_kernel<T>,
               cuda::grid_for(cuda::ceil_div(args.y.batch, UpdateTraits::block)),
               UpdateTraits::block, 0, cuda::stream_of(stream), args);
  cuda::check_launch("loss_part");
}

template <class T>
void loss_cuda(const LossArgs<T>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  cuda::launch(&cuda::loss_kernel<T>, 1, UpdateTraits::reduce_block, kSharedBytes, native, args);
  cuda::check_launch("loss");
}

template <class T>
void train_update_cuda(const UpdateArgs<T>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  if (args.count == 0) return;
  cuda::launch(&cuda::update_kernel<T>,
               cuda::grid_for(cuda::ceil_div(args.count, UpdateTraits::block)), UpdateTraits::block,
               0, native, args);
  cuda::check_launch("update");
}

template <class T>
void sum_of_squares_cuda(const T* x, std::int64_t count, double* result, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  constexpr std::int64_t kEach = UpdateTraits::reduce_block * UpdateTraits::each;
  const std::int64_t parts =
      std::clamp<std::int64_t>(cuda::ceil_div(count, kEach), 1, kSquaresRoom - 1);
  cuda::launch(&cuda::sum_kernel<true, T>, cuda::grid_for(parts), UpdateTraits::reduce_block,
               kSharedBytes, native, x, count, result + 1);
  cuda::launch(&cuda::sum_kernel<false, double>, 1, UpdateTraits::reduce_block, kSharedBytes,
               native, result + 1, parts, result);
  cuda::check_launch("sum_of_squares");
}

template <class T>
void store_cuda(const Wide<T>* x, std::int64_t count, T* stored, Stream& stream) {
  if (count == 0) return;
  cuda::launch(&cuda::store_kernel<T>, cuda::grid_for(cuda::ceil_div(count, UpdateTraits::block)),
               UpdateTraits::block, 0, cuda::stream_of(stream), x, count, stored);
  cuda::check_launch("store");
}

void judge_cuda(const JudgeArgs& args, Stream& stream) {
  cuda::launch(&cuda::judge_kernel<JudgeArgs>, 1, 1, 0, cuda::stream_of(stream), args);
  cuda::check_launch("judge");
}

template void loss_part_cuda<float>(const LossArgs<float>& args, Stream& stream);
template void loss_cuda<float>(const LossArgs<float>& args, Stream& stream);
template void loss_part_cuda<double>(const LossArgs<double>& args, Stream& stream);
template void loss_cuda<double>(const LossArgs<double>& args, Stream& stream);
template void loss_part_cuda<Half>(const LossArgs<Half>& args, Stream& stream);
template void loss_cuda<Half>(const LossArgs<Half>& args, Stream& stream);
template void loss_part_cuda<Bfloat16>(const LossArgs<Bfloat16>& args, Stream& stream);
template void loss_cuda<Bfloat16>(const LossArgs<Bfloat16>& args, Stream& stream);
template void train_update_cuda<float>(const UpdateArgs<float>& args, Stream& stream);
template void train_update_cuda<double>(const UpdateArgs<double>& args, Stream& stream);
template void sum_of_squares_cuda<float>(const float* x, std::int64_t count, double* result,
                                         Stream& stream);
template void sum_of_squares_cuda<double>(const double* x, std::int64_t count, double* result,
                                          Stream& stream);
template void store_cuda<Half>(const float* x, std::int64_t count, Half* stored, Stream& stream);
template void store_cuda<Bfloat16>(const float* x, std::int64_t count, Bfloat16* stored,
                                   Stream& stream);

}  // namespace spdnn
