// The CPU's kernels, for the tables.
#pragma once

#include "spdnn/op.hpp"

namespace spdnn {
[[nodiscard]] const SpmmKernel<float>& spmm_panel_cpu();
[[nodiscard]] const LayoutKernels<float>& layout_cpu();
}  // namespace spdnn
