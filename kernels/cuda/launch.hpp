// Host side of the launchers: errors, grid sizes, arguments. Launches go through `launch`, so that
// the same launchers are built by a host compiler for devices of the SIMT layer.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "cuda/cuda_kernels.hpp"
#include "cuda/dispatch.hpp"
#include "cuda/panel.cuh"

#if defined(__CUDACC__)
#include <cuda_runtime_api.h>
#else
#include "support/simt/queue.hpp"
#endif

namespace spdnn::cuda {

#if defined(__CUDACC__)

using NativeStream = cudaStream_t;

/// Throws `DeviceError` for a failed CUDA call; `what` says which.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::string message = std::string(what) + " failed: " + cudaGetErrorString(status) + " (" +
                        cudaGetErrorName(status) + ")";
  if (status == cudaErrorNoKernelImageForDevice) {
    message +=
        "; this build has no code for the device: configure with "
        "-DCMAKE_CUDA_ARCHITECTURES=native and build again";
  }
  throw DeviceError(message);
}

/// Checks the launch just made.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

/// Queues `kernel<<<grid, block, shared_bytes, stream>>>(arguments…)`.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), unsigned grid, int block, std::size_t shared_bytes,
            NativeStream stream, const Arguments&... arguments) {
  kernel<<<grid, static_cast<unsigned>(block), shared_bytes, stream>>>(arguments...);
}

/// Lets `kernel` have as much dynamic shared memory as a launch is about to ask for.
template <class Kernel>
void allow_shared(Kernel* kernel, std::int64_t bytes, const char* what) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        what);
}

#else

using NativeStream = simt::Queue*;

inline void check_launch(const char* /*kernel*/) {}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), unsigned grid, int block, std::size_t shared_bytes,
            NativeStream stream, const Arguments&... arguments) {
  stream->push([=] {
    simt::launch({grid, static_cast<unsigned>(block), shared_bytes, simt::next_schedule()}, kernel,
                 arguments...);
  });
}

template <class Kernel>
void allow_shared(Kernel* /*kernel*/, std::int64_t /*bytes*/, const char* /*what*/) {}

#endif

/// The native stream behind `stream`; makes its device the thread's current one.
inline NativeStream stream_of(Stream& stream) { return static_cast<NativeStream>(stream.native()); }

/// Blocks for `items` pieces of work: all kernels loop, so the limit of a grid is no limit of
/// theirs.
inline unsigned grid_for(std::int64_t items) {
  return static_cast<unsigned>(std::min<std::int64_t>(items, 0x7fffffff));
}

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Pieces a warp takes one after another, at most `most`: as many as still leave every SM of the
/// stream, which holds `warps_per_sm` of these warps, some rounds of them.
inline int pieces_per_warp(const Stream& stream, std::int64_t pieces, std::int64_t warps_per_sm,
                           int most) {
  constexpr std::int64_t kRounds = 4;
  return static_cast<int>(std::clamp<std::int64_t>(
      pieces / (kRounds * stream.multiprocessors() * warps_per_sm), 1, most));
}

/// A device copy of `host`, owned by `to`. `host` must stay until the stream has passed this point.
template <class T>
const T* upload(const std::vector<T>& host, Buffer& to, Device& device, Stream& stream) {
  const std::size_t bytes = host.size() * sizeof(T);
  to = device.allocate(bytes);
  if (bytes > 0) stream.copy(to.data(), host.data(), bytes);
  return to.as<const T>();
}

/// A layer's arguments by value, with the flags of living images zeroed on the stream.
inline SpmmKernelArgs kernel_args(const SpmmArgs<float>& args, Stream& stream) {
  if (args.alive != nullptr && args.y.batch > 0) {
    stream.zero(args.alive, static_cast<std::size_t>(args.y.batch));
  }
  return {args.weights->csr, args.bias, args.epilogue, args.x, args.y, args.alive};
}

/// Why none of the vectorised kernels takes a layer.
inline std::optional<std::string> declines_common(const SpmmShape& shape) {
  if (shape.panel_width != 32 && shape.panel_width != 64 && shape.panel_width != 128) {
    return "panels are " + std::to_string(shape.panel_width) +
           " images wide; it is written for 32, 64 and 128";
  }
  if (shape.value_type != DType::f32) return "weights are not f32";
  if (shape.rows > 0x7fffffff) {
    return std::to_string(shape.rows) + " rows; it numbers at most 2147483647";
  }
  return std::nullopt;
}

/// Why a kernel of lower precision does not take a layer.
inline std::optional<std::string> declines_precision(const SpmmShape& shape, Precision kernel) {
  if (shape.precision >= kernel) return std::nullopt;
  return "it multiplies in " + std::string(to_string(kernel)) + "; the run asks for " +
         std::string(to_string(shape.precision)) + " (`precision`)";
}

/// Why a kernel built for one panel width alone does not take a layer.
inline std::optional<std::string> declines_other_widths(const SpmmShape& shape) {
  if (shape.panel_width == kCudaPanelWidth) return std::nullopt;
  return "it is built for panels of " + std::to_string(kCudaPanelWidth) + " images, not " +
         std::to_string(shape.panel_width);
}

}  // namespace spdnn::cuda
