// The layers that kernels are timed on.
#pragma once

#include <string>
#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn::bench {

struct LayerCase {
  std::string name;
  Csr weights;
};
/// Graph Challenge layers (RadiX-Net, a stage after the first permutation), random ones, and two of
/// which a half or all of the connections are there.
[[nodiscard]] const std::vector<LayerCase>& layer_cases();

}  // namespace spdnn::bench
