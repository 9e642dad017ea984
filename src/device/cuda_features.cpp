// What CUDA's libraries say of themselves, and the hooks for NVIDIA's profilers.
#include <cuda_profiler_api.h>
#include <cuda_runtime_api.h>
#include <cusparse.h>
#include <nvtx3/nvToolsExt.h>
#if __has_include(<nccl.h>)
#include <nccl.h>
#endif

#include "backend.hpp"
#include "cuda_check.hpp"
#include "cuda_library.hpp"

namespace spdnn {
namespace {

/// "13.0" of 13000.
std::string dotted(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

Feature cuda_feature() {
  Feature feature{"cuda", true, false, "", ""};
  int runtime = 0;
  int driver = 0;
  int devices = 0;
  (void)cudaRuntimeGetVersion(&runtime);
  (void)cudaDriverGetVersion(&driver);
  const cudaError_t status = cudaGetDeviceCount(&devices);
  (void)cudaGetLastError();
  feature.usable = status == cudaSuccess && devices > 0;
  feature.version = fmt::format("runtime {}, driver {}", dotted(runtime),
                                driver == 0 ? std::string("none") : dotted(driver));
  if (feature.usable) return feature;
  feature.remedy =
      status == cudaSuccess || status == cudaErrorNoDevice
          ? "no NVIDIA GPU is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES"
          : fmt::format("install an NVIDIA driver that supports CUDA {}", dotted(runtime));
  return feature;
}

Feature cusparse_feature() {
  Feature feature{"cusparse", true, false, "", ""};
  const std::string name = fmt::format("libcusparse.so.{}", CUSPARSE_VER_MAJOR);
  const CudaLibrary library(name);
  const auto property = library.function<decltype(&cusparseGetProperty)>("cusparseGetProperty");
  int major = 0;
  int minor = 0;
  int patch = 0;
  feature.usable = property != nullptr &&
                   property(MAJOR_VERSION, &major) == CUSPARSE_STATUS_SUCCESS &&
                   property(MINOR_VERSION, &minor) == CUSPARSE_STATUS_SUCCESS &&
                   property(PATCH_LEVEL, &patch) == CUSPARSE_STATUS_SUCCESS;
  if (feature.usable) {
    feature.version = fmt::format("{}.{}.{}", major, minor, patch);
  } else {
    feature.remedy = fmt::format(
        "{} was not found: install cuSPARSE of the CUDA Toolkit, or add its folder to "
        "LD_LIBRARY_PATH",
        name);
  }
  return feature;
}

#if defined(NCCL_MAJOR)
Feature nccl_feature() {
  Feature feature{"nccl", true, false, "", ""};
  const std::string name = fmt::format("libnccl.so.{}", NCCL_MAJOR);
  const CudaLibrary library(name);
  const auto get_version = library.function<decltype(&ncclGetVersion)>("ncclGetVersion");
  int version = 0;  // major · 10000 + minor · 100 + patch, from 2.9 on
  feature.usable = get_version != nullptr && get_version(&version) == ncclSuccess;
  if (feature.usable) {
    feature.version =
        fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
  } else {
    feature.remedy =
        fmt::format("{} was not found: install libnccl{}, or add its folder to LD_LIBRARY_PATH",
                    name, NCCL_MAJOR);
  }
  return feature;
}
#else
Feature nccl_feature() {
  return {"nccl", false, false, "", "install libnccl-dev (nccl.h) and configure and build again"};
}
#endif

nvtxDomainHandle_t nvtx_domain() {
  static const nvtxDomainHandle_t domain = nvtxDomainCreateA("spdnn");
  return domain;
}

}  // namespace

std::vector<Feature> list_cuda_features() {
  return {cuda_feature(), cusparse_feature(), nccl_feature(),
          Feature{"nvtx", true, true, fmt::format("{}", NVTX_VERSION), ""}};
}

void push_nvtx_range(const char* name, std::int64_t payload) {
  nvtxEventAttributes_t range{};
  range.version = NVTX_VERSION;
  range.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  range.messageType = NVTX_MESSAGE_TYPE_ASCII;
  range.message.ascii = name;
  if (payload >= 0) {
    range.payloadType = NVTX_PAYLOAD_TYPE_INT64;
    range.payload.llValue = payload;
  }
  nvtxDomainRangePushEx(nvtx_domain(), &range);
}

void pop_nvtx_range() { nvtxDomainRangePop(nvtx_domain()); }

void set_cuda_profiler(bool on) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    (void)cudaGetLastError();
    return;
  }
  check_cuda(on ? cudaProfilerStart() : cudaProfilerStop(), "cudaProfilerStart or -Stop");
}

}  // namespace spdnn
