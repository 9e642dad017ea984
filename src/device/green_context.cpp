// Finds the driver's functions, and parts a GPU.
#include "green_context.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "cuda_check.hpp"

namespace spdnn {
namespace {

/// The first driver that has them.
constexpr unsigned kDriver = 12040;

template <class Function>
void look_up(const char* name, Function& function) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
#if CUDART_VERSION >= 12050
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion(name, &found, kDriver, cudaEnableDefault, &result);
#else
  const cudaError_t status = cudaGetDriverEntryPoint(name, &found, cudaEnableDefault, &result);
#endif
  if (status != cudaSuccess || result != cudaDriverEntryPointSuccess || found == nullptr) {
    (void)cudaGetLastError();
    throw DeviceError(fmt::format(
        "this NVIDIA driver has no {}, which `sms` needs: install a driver for CUDA 12.4 or newer, "
        "or leave `sms` out",
        name));
  }
  function = reinterpret_cast<Function>(found);
}

GreenFunctions find_functions() {
  GreenFunctions driver;
  look_up("cuDeviceGet", driver.get_device);
  look_up("cuDeviceGetDevResource", driver.get_resource);
  look_up("cuDevSmResourceSplitByCount", driver.split);
  look_up("cuDevResourceGenerateDesc", driver.describe);
  look_up("cuGreenCtxCreate", driver.create);
  look_up("cuGreenCtxStreamCreate", driver.create_stream);
  look_up("cuGreenCtxDestroy", driver.destroy);
  look_up("cuGetErrorString", driver.error_string);
  return driver;
}

void check(const GreenFunctions& driver, CUresult status, const char* call) {
  if (status == CUDA_SUCCESS) return;
  const char* text = nullptr;
  (void)driver.error_string(status, &text);
  throw DeviceError(fmt::format("{} failed: {}", call, text == nullptr ? "unknown error" : text));
}

/// The smallest groups that the driver makes of all multiprocessors, and last what is left over.
std::vector<CUdevResource> smallest_groups(const GreenFunctions& driver, CUdevice device) {
  CUdevResource all{};
  check(driver, driver.get_resource(device, &all, CU_DEV_RESOURCE_TYPE_SM),
        "cuDeviceGetDevResource");
  unsigned count = 0;
  check(driver, driver.split(nullptr, &count, &all, nullptr, 0, 1), "cuDevSmResourceSplitByCount");
  std::vector<CUdevResource> groups(count + 1);
  check(driver, driver.split(groups.data(), &count, &all, &groups[count], 0, 1),
        "cuDevSmResourceSplitByCount");
  groups.erase(groups.begin() + count, groups.end() - 1);
  if (groups.back().type != CU_DEV_RESOURCE_TYPE_SM || groups.back().sm.smCount == 0) {
    groups.pop_back();
  }
  return groups;
}

/// The groups that are `own` multiprocessors after the first `before`.
std::vector<CUdevResource> groups_of(const std::vector<CUdevResource>& groups, int index,
                                     int before, int own) {
  std::vector<CUdevResource> chosen;
  int passed = 0;
  int taken = 0;
  for (const CUdevResource& group : groups) {
    const auto size = static_cast<int>(group.sm.smCount);
    if (passed >= before && taken < own) {
      chosen.push_back(group);
      taken += size;
    }
    passed += size;
  }
  if (before + own > passed) {
    throw DeviceError(
        fmt::format("cuda {} has {} multiprocessors, and its ranks ask for {}: give them fewer "
                    "(`sms`)",
                    index, passed, before + own));
  }
  const auto grain = groups.empty() ? 0 : static_cast<int>(groups.front().sm.smCount);
  if (taken != own || before % grain != 0) {
    throw DeviceError(
        fmt::format("cuda {} parts its {} multiprocessors by {}: {} for a rank after {} do not "
                    "fit; choose multiples (`sms`), the last rank may take all that are left",
                    index, passed, grain, own, before));
  }
  return chosen;
}

}  // namespace

const GreenFunctions& green_functions() {
  static const GreenFunctions functions = find_functions();
  return functions;
}

GreenContext::GreenContext(const GreenFunctions& driver, int index, int before, int own)
    : driver_(driver) {
  CUdevice device{};
  check(driver, driver.get_device(&device, index), "cuDeviceGet");
  std::vector<CUdevResource> own_groups =
      groups_of(smallest_groups(driver, device), index, before, own);
  CUdevResourceDesc description = nullptr;
  check(driver,
        driver.describe(&description, own_groups.data(), static_cast<unsigned>(own_groups.size())),
        "cuDevResourceGenerateDesc");
  check(driver, driver.create(&context_, description, device, CU_GREEN_CTX_DEFAULT_STREAM),
        "cuGreenCtxCreate");
}

GreenContext::~GreenContext() { (void)driver_.destroy(context_); }

cudaStream_t GreenContext::make_stream() const {
  CUstream stream = nullptr;
  check(driver_, driver_.create_stream(&stream, context_, CU_STREAM_NON_BLOCKING, 0),
        "cuGreenCtxStreamCreate");
  return stream;
}

}  // namespace spdnn
