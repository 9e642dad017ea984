// The CUDA kernels of training that `tables.cpp` lists; usable without CUDA headers.
#pragma once

#include "spdnn/train_op.hpp"

namespace spdnn {

/// Linear layers; see train_linear.cu and train_dense.cu.
template <class T>
[[nodiscard]] LinearKernels<T> train_sparse_cuda();
template <class T>
[[nodiscard]] LinearKernels<T> train_dense_cuda();

/// Convolutions and poolings; see train_conv.cu and train_pool.cu.
template <class T>
[[nodiscard]] LinearKernels<T> train_sparse_conv_cuda();
template <class T>
[[nodiscard]] LinearKernels<T> train_dense_conv_cuda();
template <class T>
void pool_forward_cuda(const PoolForwardArgs<T>& args, Stream& stream);
template <class T>
void pool_backward_cuda(const PoolBackwardArgs<T>& args, Stream& stream);

/// Losses, optimisers, norms, copies in 16 bits and the judge of scaled losses; see
/// train_update.cu.
template <class T>
void loss_part_cuda(const LossArgs<T>& args, Stream& stream);
template <class T>
void loss_cuda(const LossArgs<T>& args, Stream& stream);
template <class T>
void train_update_cuda(const UpdateArgs<T>& args, Stream& stream);
template <class T>
void sum_of_squares_cuda(const T* x, std::int64_t count, double* result, Stream& stream);
template <class T>
void store_cuda(const Wide<T>* x, std::int64_t count, T* stored, Stream& stream);
void judge_cuda(const JudgeArgs& args, Stream& stream);

/// All of them.
template <class T>
[[nodiscard]] TrainKernels<T> train_cuda() {
  TrainKernels<T> kernels = {"cuda",
                             DeviceKind::cuda,
                             train_sparse_cuda<T>(),
                             train_dense_cuda<T>(),
                             train_sparse_conv_cuda<T>(),
                             train_dense_conv_cuda<T>(),
                             {pool_forward_cuda<T>, pool_backward_cuda<T>},
                             loss_part_cuda<T>,
                             loss_cuda<T>,
                             train_update_cuda<Wide<T>>,
                             sum_of_squares_cuda<Wide<T>>};
  kernels.judge = judge_cuda;
  if constexpr (kIsNarrow<T>) kernels.store = store_cuda<T>;
  return kernels;
}

}  // namespace spdnn
