// Some of a GPU's multiprocessors for one rank: a green context of the driver, in which the rank's
// streams live. Memory and everything else stay those of the whole GPU.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

namespace spdnn {

/// The driver's functions, found at run time so that the program starts without a driver, and that
/// tests can stand in for it.
struct GreenFunctions {
  decltype(&cuDeviceGet) get_device = nullptr;
  decltype(&cuDeviceGetDevResource) get_resource = nullptr;
  decltype(&cuDevSmResourceSplitByCount) split = nullptr;
  decltype(&cuDevResourceGenerateDesc) describe = nullptr;
  decltype(&cuGreenCtxCreate) create = nullptr;
  decltype(&cuGreenCtxStreamCreate) create_stream = nullptr;
  decltype(&cuGreenCtxDestroy) destroy = nullptr;
  decltype(&cuGetErrorString) error_string = nullptr;
};

/// Those of this machine's driver. Throws `DeviceError` where it is older than 12.4.
[[nodiscard]] const GreenFunctions& green_functions();

class GreenContext {
 public:
  /// `own` multiprocessors of GPU `index` after the first `before`, which other ranks have. The
  /// driver parts a GPU into groups of equal size and what is left over; the same groups each time,
  /// so that ranks need not agree on who has which. Throws `DeviceError` where `before` or `own`
  /// are no whole number of groups (the last rank may take what is left over), or not there.
  GreenContext(const GreenFunctions& driver, int index, int before, int own);
  ~GreenContext();
  GreenContext(const GreenContext&) = delete;
  GreenContext& operator=(const GreenContext&) = delete;

  /// A stream whose kernels run on these multiprocessors alone; `cudaStreamDestroy` ends it.
  [[nodiscard]] cudaStream_t make_stream() const;

 private:
  const GreenFunctions& driver_;
  CUgreenCtx context_ = nullptr;
};

}  // namespace spdnn
