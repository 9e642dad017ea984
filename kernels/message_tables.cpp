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
  if (kind == DeviceKind::cpu) return message_cpu<T>();
  throw DeviceError(fmt::format("this build has no kernels for {} devices", to_string(kind)));
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

}  // namespace spdnn
