// The CUDA backend of a build without CUDA: no devices, and what to do to have them.
#include <fmt/format.h>

#include "backend.hpp"

namespace spdnn {

std::unique_ptr<Device> open_cuda(const DeviceSpec& spec) {
  throw DeviceError(fmt::format("cuda device {}: this build has no CUDA backend; to get it, {}",
                                spec.index, SPDNN_CUDA_REMEDY));
}

std::vector<DeviceInfo> list_cuda_devices() { return {}; }

std::vector<Feature> list_cuda_features() {
  std::vector<Feature> features;
  for (const char* name : {"cuda", "cusparse", "nccl", "nvtx"}) {
    features.push_back({name, false, false, "", SPDNN_CUDA_REMEDY});
  }
  return features;
}

void push_nvtx_range(const char* /*name*/, std::int64_t /*payload*/) {}
void pop_nvtx_range() {}
void set_cuda_profiler(bool /*on*/) {}

}  // namespace spdnn
