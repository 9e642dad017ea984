// CUDA calls that throw: `check_cuda(cudaX(...), "cudaX")`.
#pragma once

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <string_view>

#include "spdnn/error.hpp"

namespace spdnn {

/// Throws `DeviceError` with the call, its place in the source and CUDA's message when it failed.
inline void check_cuda(cudaError_t status, const char* call, const char* file = __builtin_FILE(),
                       int line = __builtin_LINE()) {
  if (status == cudaSuccess) return;
  const std::string_view path = file;
  throw DeviceError(fmt::format("{} failed: {} ({}) at {}:{}", call, cudaGetErrorString(status),
                                cudaGetErrorName(status), path.substr(path.rfind('/') + 1), line));
}

}  // namespace spdnn
