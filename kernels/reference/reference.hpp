// The serial reference kernel of the CPU: what every other kernel is tested against.
#pragma once

#include "spdnn/op.hpp"

namespace spdnn {
template <class T>
[[nodiscard]] const SpmmKernel<T>& spmm_reference();
}  // namespace spdnn
