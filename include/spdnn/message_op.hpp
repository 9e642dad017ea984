// The operations of exchanges between ranks: rows of panels into messages, and out of them.
#pragma once

#include <cstdint>

#include "spdnn/device.hpp"
#include "spdnn/half.hpp"

namespace spdnn {

/// Rows of panels and a message: `[row][image]`, the images that are there alone, so that devices
/// with panels of unlike widths understand one another. Row i of it is row `rows[i]` of x.
template <class P, class M>
struct MessageArgs {
  Panels<P> x;
  const std::uint32_t* rows = nullptr;  ///< device memory, as `message`
  std::int64_t count = 0;
  M* message = nullptr;  ///< count · x.batch
};
template <class T>
using PackArgs = MessageArgs<const T, T>;  ///< message ← x
template <class T>
using UnpackArgs = MessageArgs<T, const T>;  ///< x ← message, and 0 in lanes without an image

/// Row `rows[i]` of x += rows `sources[offsets[i]]` … of the message, one after another, so that a
/// sum has one order; it is Wide<T>, and stored when it is whole. No row is listed twice.
template <class T>
struct AddMessageArgs {
  Panels<T> x;
  const std::uint32_t* rows = nullptr;     ///< `count` of them, in device memory as what follows
  const std::uint32_t* offsets = nullptr;  ///< count + 1
  const std::uint32_t* sources = nullptr;
  std::int64_t count = 0;
  const T* message = nullptr;
};

/// Row `to_rows[i]` of `to` ← row `from_rows[i]` of `from`, all lanes.
template <class T>
struct CopyRowsArgs {
  Panels<const T> from;
  Panels<T> to;  ///< batch and width as in `from`
  const std::uint32_t* from_rows = nullptr;
  const std::uint32_t* to_rows = nullptr;
  std::int64_t count = 0;
};

/// What exchanges between ranks need of a device, one implementation for each kind.
template <class T>
struct MessageKernels {
  void (*pack)(const PackArgs<T>& args, Stream& stream);
  void (*unpack)(const UnpackArgs<T>& args, Stream& stream);
  void (*add)(const AddMessageArgs<T>& args, Stream& stream);
  void (*copy_rows)(const CopyRowsArgs<T>& args, Stream& stream);
};
/// Throws `DeviceError` when this build has none.
template <class T>
[[nodiscard]] const MessageKernels<T>& message_kernels(DeviceKind kind);
template <>
const MessageKernels<float>& message_kernels<float>(DeviceKind kind);
template <>
const MessageKernels<double>& message_kernels<double>(DeviceKind kind);
/// Of 16 bits on GPUs alone.
template <>
const MessageKernels<Half>& message_kernels<Half>(DeviceKind kind);
template <>
const MessageKernels<Bfloat16>& message_kernels<Bfloat16>(DeviceKind kind);

}  // namespace spdnn
