// The CPU's kernels, for the tables.
#pragma once

#include "spdnn/op.hpp"

namespace spdnn {
/// Images per panel: two vectors of AVX-512, so that an index loaded serves both.
inline constexpr std::int64_t kCpuPanelWidth = 32;
[[nodiscard]] const SpmmKernel<float>& spmm_panel_cpu();
[[nodiscard]] const LayoutKernels<float>& layout_cpu();
}  // namespace spdnn
