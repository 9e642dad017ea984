// What each backend offers `open.cpp` and `features.cpp`; private to src/device.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "spdnn/device.hpp"

namespace spdnn {

/// Opens the CPU with the threads and cores of `spec`.
[[nodiscard]] std::unique_ptr<Device> open_cpu(const DeviceSpec& spec);
/// What the machine says of its CPU and of the memory this process may use.
[[nodiscard]] DeviceInfo cpu_info(int threads);

// Of cuda.cpp, or cuda_stub.cpp in a build without CUDA.
[[nodiscard]] std::unique_ptr<Device> open_cuda(const DeviceSpec& spec);
[[nodiscard]] std::vector<DeviceInfo> list_cuda_devices();
[[nodiscard]] std::vector<Feature> list_cuda_features();
void push_nvtx_range(const char* name, std::int64_t payload);
void pop_nvtx_range();
void set_cuda_profiler(bool on);

}  // namespace spdnn
