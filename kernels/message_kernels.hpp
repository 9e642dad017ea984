// Rows in messages on each kind of device, for the tables; for float and double, on GPUs for 16
// bits.
#pragma once

#include "spdnn/message_op.hpp"

namespace spdnn {

template <class T>
[[nodiscard]] const MessageKernels<T>& message_cpu();
/// See cuda/message.cu.
template <class T>
[[nodiscard]] const MessageKernels<T>& message_cuda();

}  // namespace spdnn
