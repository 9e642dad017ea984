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

/// Losses, optimisers and norms; see train_update.cu.
template <class T>
void loss_cuda(const LossArgs<T>& args, Stream& stream);
template <class T>
void train_update_cuda(const UpdateArgs<T>& args, Stream& stream);
template <class T>
void sum_of_squares_cuda(const T* x, std::int64_t count, double* result, Stream& stream);

}  // namespace spdnn
