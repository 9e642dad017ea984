// Which kinds of devices change connections in memory of their own.
#include "rewire_kernels.hpp"

namespace spdnn {

const RewireKernels* rewire_kernels([[maybe_unused]] DeviceKind kind) {
#if defined(SPDNN_HAVE_CUDA)
  if (kind == DeviceKind::cuda) return &rewire_cuda();
#endif
  return nullptr;
}

}  // namespace spdnn
