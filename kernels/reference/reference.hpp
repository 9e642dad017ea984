// The serial reference kernels of the CPU: what every other kernel is tested against.
#pragma once

#include "spdnn/train_op.hpp"

namespace spdnn {
template <class T>
[[nodiscard]] const SpmmKernel<T>& spmm_reference();
template <class T>
[[nodiscard]] const TrainKernels<T>& train_reference();
template <class T>
void pool_forward_reference(const PoolForwardArgs<T>& args, Stream& stream);
template <class T>
void pool_backward_reference(const PoolBackwardArgs<T>& args, Stream& stream);
template <class T>
void loss_part_cpu(const LossArgs<T>& args, Stream& stream);
template <class T>
void loss_cpu(const LossArgs<T>& args, Stream& stream);
}  // namespace spdnn
