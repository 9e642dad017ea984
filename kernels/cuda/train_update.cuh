// Device code of losses, optimisers and norms; mapping and costs are described in train_update.cu.
#pragma once

#include <cmath>

#include "cuda/train_lanes.cuh"
#include "loss_parts.hpp"
#include "spdnn/train_op.hpp"

namespace spdnn::cuda {

struct UpdateTraits {
  static constexpr int block = 256;         ///< threads, an element each
  static constexpr int reduce_block = 256;  ///< threads of a block that sums up
  static constexpr int each = 16;           ///< elements of one thread of a sum, at least
  static_assert(block % kWarp == 0 && reduce_block % kWarp == 0 && reduce_block <= 1024);
};

/// The sum of all threads' values in thread 0; `shared` has room for one of each thread. The order
/// is a tree over the threads. All threads of the block meet here.
__device__ __forceinline__ double block_sum(double value, double* shared) {
  shared[threadIdx.x] = value;
  __syncthreads();
  for (unsigned half = UpdateTraits::reduce_block / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  return shared[0];
}

/// The gradient by the sums of one output from that by the output, stored as T.
template <class T>
__device__ __forceinline__ T through(const Epilogue& activation, Wide<T> y, Wide<T> gradient) {
  return is_between<T>(y, activation) ? T(gradient) : T{0};
}

/// What the gradient by the outputs is multiplied by.
template <class T>
__device__ __forceinline__ Wide<T> scale_of(const LossArgs<T>& args) {
  return args.loss_scale == nullptr ? args.scale : args.scale * *args.loss_scale;
}

/// Which of all outputs a feature of this rank is.
template <class T>
__device__ __forceinline__ std::int64_t number_of(const LossArgs<T>& args, std::int64_t feature) {
  return args.numbers == nullptr ? feature : std::int64_t{args.numbers[feature]};
}

/// How far an output is from what it should be: of a softmax, from the largest one.
template <class T>
__device__ __forceinline__ Wide<T> difference(const LossArgs<T>& args, Wide<T> y, Wide<T> top,
                                              bool is_label) {
  return args.loss == Loss::cross_entropy ? y - top : y - (is_label ? 1 : 0);
}

/// A thread an image, neighbouring threads neighbouring images.
template <class T>
__global__ void __launch_bounds__(UpdateTraits::block) loss_part_kernel(LossArgs<T> args) {
  using W = Wide<T>;
  const std::int64_t image = std::int64_t{blockIdx.x} * UpdateTraits::block + threadIdx.x;
  if (image >= args.y.batch) return;
  W top = -W(INFINITY);
  std::int64_t which = args.outputs;
#pragma unroll 1
  for (std::int64_t c = 0; c < args.y.features; ++c) {
    const W y = args.y.at(c, image);
    const std::int64_t number = number_of(args, c);
    if (c == 0 || y > top || (y == top && number < which)) {
      top = y;
      which = number;
    }
  }
  const std::int64_t label = args.labels[image];
  W at_label = -W(INFINITY);
  W sum = 0;
#pragma unroll 1
  for (std::int64_t c = 0; c < args.y.features; ++c) {
    const W y = args.y.at(c, image);
    const bool is_label = number_of(args, c) == label;
    if (is_label) at_label = y;
    const W from = difference(args, y, top, is_label);
    sum += args.loss == Loss::cross_entropy ? std::exp(from) : from * from;
  }
  args.part.at(LossPart::top, image) = top;
  args.part.at(LossPart::which, image) = static_cast<W>(which);
  args.part.at(LossPart::sum, image) = sum;
  args.part.at(LossPart::at_label, image) = at_label;
}

/// The gradient by the sums of this rank's outputs for an image.
template <class T>
__device__ __forceinline__ void loss_gradient(const LossArgs<T>& args, std::int64_t image,
                                              const WholeLoss<Wide<T>>& whole) {
  using W = Wide<T>;
  const bool softmax = args.loss == Loss::cross_entropy;
  const W part = 1 / (softmax ? whole.sum : static_cast<W>(args.outputs));
  const W scale = scale_of(args);
  const std::int64_t label = args.labels[image];
#pragma unroll 1
  for (std::int64_t c = 0; c < args.y.features; ++c) {
    const W y = args.y.at(c, image);
    const bool is_label = number_of(args, c) == label;
    const W from = difference(args, y, whole.top, is_label);
    const W slope = softmax ? std::exp(from) * part - (is_label ? 1 : 0) : from * part;
    args.dz.at(c, image) = through<T>(args.activation, y, scale * slope);
  }
}

/// One block; a thread takes every 256th lane.
template <class T>
__global__ void __launch_bounds__(UpdateTraits::reduce_block, 1) loss_kernel(LossArgs<T> args) {
  double loss = 0.0;
  const std::int64_t lanes = args.y.count() * args.y.width;
  for (std::int64_t image = threadIdx.x; image < lanes; image += UpdateTraits::reduce_block) {
    if (image >= args.y.batch) {
#pragma unroll 1
      for (std::int64_t c = 0; c < args.y.features; ++c) args.dz.at(c, image) = T{0};
      continue;
    }
    const WholeLoss<Wide<T>> whole = put_together(args.parts, image, args.loss);
    args.predictions[image] = static_cast<std::int32_t>(whole.which);
    loss += whole.value(args.loss, args.outputs);
    loss_gradient(args, image, whole);
  }
  loss = block_sum(loss, dynamic_shared<double>());
  if (threadIdx.x == 0) *args.loss_sum = args.adds_up ? *args.loss_sum + loss : loss;
}

/// What the gradient is multiplied by, found by one thread for its block: roots and quotients in
/// double are slow on many GPUs.
template <class T>
__device__ __forceinline__ T block_scale(const UpdateArgs<T>& args) {
  if (args.squares == nullptr) return args.gradient_scale();
  __shared__ T scale;
  if (threadIdx.x == 0) scale = args.gradient_scale();
  __syncthreads();
  return scale;
}

/// A thread takes every so many-th parameter; grid of any size.
template <class T>
__global__ void __launch_bounds__(UpdateTraits::block, 1) update_kernel(UpdateArgs<T> args) {
  const std::int64_t threads = std::int64_t{gridDim.x} * UpdateTraits::block;
  const bool nesterov = args.kind == OptimizerKind::nesterov;
  const bool has_first = args.kind != OptimizerKind::sgd;
  const bool adamw = args.kind == OptimizerKind::adamw;
  const bool adaptive = adamw || args.kind == OptimizerKind::adam;
  const T scale = block_scale(args);
  const bool scaled = args.loss_scale != nullptr;
  if (scaled && scale == T{0}) return;
  const T correction1 = scaled ? T(args.loss_scale->correction1) : args.correction1;
  const T correction2 = scaled ? T(args.loss_scale->correction2) : args.correction2;
  for (std::int64_t i = std::int64_t{blockIdx.x} * UpdateTraits::block + threadIdx.x;
       i < args.count; i += threads) {
    T p = args.parameters[i];
    T g = args.gradient[i] * scale;
    if (!adamw) g += args.decay * p;
    if (adaptive) {
      const T m = args.beta1 * args.first[i] + (T{1} - args.beta1) * g;
      const T v = args.beta2 * args.second[i] + (T{1} - args.beta2) * g * g;
      args.first[i] = m;
      args.second[i] = v;
      if (adamw) p -= args.rate * args.decay * p;
      p -= args.rate * (m / correction1) / (std::sqrt(v / correction2) + args.epsilon);
    } else if (has_first) {
      const T m = args.momentum * args.first[i] + g;
      args.first[i] = m;
      p -= args.rate * (nesterov ? g + args.momentum * m : m);
    } else {
      p -= args.rate * g;
    }
    args.parameters[i] = p;
  }
}

/// parts[b] ← block b's part of Σ x, or where `kSquared` of Σ x²: a grid that depends on the number
/// of elements alone gives one order of summation on all devices.
template <bool kSquared, class T>
__global__ void __launch_bounds__(UpdateTraits::reduce_block)
    sum_kernel(const T* x, std::int64_t count, double* parts) {
  const std::int64_t threads = std::int64_t{gridDim.x} * UpdateTraits::reduce_block;
  double sum = 0.0;
#pragma unroll 4
  for (std::int64_t i = std::int64_t{blockIdx.x} * UpdateTraits::reduce_block + threadIdx.x;
       i < count; i += threads) {
    const auto value = static_cast<double>(x[i]);
    sum += kSquared ? value * value : value;
  }
  sum = block_sum(sum, dynamic_shared<double>());
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

/// stored[i] ← x[i]. A thread an element; grid of any size.
template <class T>
__global__ void __launch_bounds__(UpdateTraits::block)
    store_kernel(const Wide<T>* x, std::int64_t count, T* stored) {
  const std::int64_t threads = std::int64_t{gridDim.x} * UpdateTraits::block;
  for (std::int64_t i = std::int64_t{blockIdx.x} * UpdateTraits::block + threadIdx.x; i < count;
       i += threads) {
    stored[i] = T(x[i]);
  }
}

/// One thread: `JudgeArgs`. Of a type so that it is built where it is launched.
template <class Args>
__global__ void judge_kernel(Args args) {
  LossScale& scale = *args.scale;
  if (!std::isfinite(*args.squares)) {
    scale.unscale = 0.0;
    scale.good = 0;
    scale.scale = scale.scale > 2.0F ? scale.scale / 2.0F : 1.0F;
    return;
  }
  scale.unscale = 1.0 / static_cast<double>(scale.scale);
  const auto taken = static_cast<double>(++scale.taken);
  scale.correction1 = static_cast<float>(1.0 - std::pow(args.beta1, taken));
  scale.correction2 = static_cast<float>(1.0 - std::pow(args.beta2, taken));
  if (++scale.good < args.every) return;
  scale.good = 0;
  if (std::isfinite(2.0F * scale.scale)) scale.scale *= 2.0F;
}

}  // namespace spdnn::cuda
