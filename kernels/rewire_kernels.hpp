// Changes of connections in a device's memory, for the tables.
#pragma once

#include "spdnn/rewire_op.hpp"

namespace spdnn {

/// See cuda/rewire.cu.
[[nodiscard]] const RewireKernels& rewire_cuda();

}  // namespace spdnn
