// A run of layers computed one after another with the kernels of SpMM, on any device.
#pragma once

#include "spdnn/op.hpp"

namespace spdnn {

/// What the other chain kernels are held against. Order: canonical.
[[nodiscard]] ChainKernel<float> chain_layered(DeviceKind device);

}  // namespace spdnn
