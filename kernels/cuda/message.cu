// Rows of panels into messages and back, on the device that computes them.
//
// Mapping: a block takes 32 rows of the list in one panel, a warp four of them, a lane every 32nd
// of a row's images: 256 bytes of fp32 that lie together on both sides, of which a message's may
// begin between two sectors.
// Bytes: 4 for the row, and of each number its own, read once and written once; a sum reads each
// row of the message once and its own row once. Bound: memory. Sums have one order, that of the
// list, with no atomics.
#include "cuda/launch.hpp"
#include "cuda/message.cuh"
#include "message_kernels.hpp"

namespace spdnn {
namespace {

template <class Args>
void launch_rows(void (*kernel)(Args), const Args& args, std::int64_t panels, const char* what,
                 Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  const unsigned grid =
      cuda::grid_for(cuda::ceil_div(args.count, cuda::MessageTraits::rows) * panels);
  if (grid == 0) return;
  cuda::launch(kernel, grid, cuda::MessageTraits::block, 0, native, args);
  cuda::check_launch(what);
}

template <class T>
void pack(const PackArgs<T>& args, Stream& stream) {
  launch_rows(&cuda::pack_kernel<T>, args, args.x.count(), "pack", stream);
}

template <class T>
void unpack(const UnpackArgs<T>& args, Stream& stream) {
  launch_rows(&cuda::unpack_kernel<T>, args, args.x.count(), "unpack", stream);
}

template <class T>
void add(const AddMessageArgs<T>& args, Stream& stream) {
  launch_rows(&cuda::add_message_kernel<T>, args, args.x.count(), "add (message)", stream);
}

template <class T>
void copy_rows(const CopyRowsArgs<T>& args, Stream& stream) {
  launch_rows(&cuda::copy_rows_kernel<T>, args, args.from.count(), "copy (rows)", stream);
}

}  // namespace

template <class T>
const MessageKernels<T>& message_cuda() {
  static const MessageKernels<T> kernels{&pack<T>, &unpack<T>, &add<T>, &copy_rows<T>};
  return kernels;
}

template const MessageKernels<float>& message_cuda<float>();
template const MessageKernels<double>& message_cuda<double>();
template const MessageKernels<Half>& message_cuda<Half>();
template const MessageKernels<Bfloat16>& message_cuda<Bfloat16>();

}  // namespace spdnn
