// Which kernels take rows into messages on each kind of device.
#include <fmt/format.h>

#include "message_kernels.hpp"
#include "spdnn/error.hpp"

namespace spdnn {
namespace {

template <class T>
const MessageKernels<T>& messages_of(DeviceKind kind) {
#if defined(SPDNN_HAVE_CUDA)
  if (kind == DeviceKind::cuda) return message_cuda<T>();
#endif
  if constexpr (!kIsNarrow<T>) {
    if (kind == DeviceKind::cpu) return message_cpu<T>();
  }
  throw DeviceError(fmt::format("this build has no kernels for messages of {} bits on {} devices",
                                8 * sizeof(T), to_string(kind)));
}

}  // namespace

template <>
const MessageKernels<float>& message_kernels<float>(DeviceKind kind) {
  return messages_of<float>(kind);
}
template <>
const MessageKernels<double>& message_kernels<double>(DeviceKind kind) {
  return messages_of<double>(kind);
}
template <>
const MessageKernels<Half>& message_kernels<Half>(DeviceKind kind) {
  return messages_of<Half>(kind);
}
template <>
const MessageKernels<Bfloat16>& message_kernels<Bfloat16>(DeviceKind kind) {
  return messages_of<Bfloat16>(kind);
}

}  // namespace spdnn
