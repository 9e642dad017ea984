// Merging identical images of an input, exactly.
#pragma once

#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn {

/// The distinct images of an input, and for each image which of them it equals.
struct Distinct {
  std::vector<std::int64_t> ids;  ///< the first image of each kind
  std::vector<std::int64_t> of;   ///< by image: its index in `ids`
};

/// Compares images `[images × features]` by their stored entries, bit for bit.
[[nodiscard]] Distinct find_distinct(const CsrView& images);

/// Every image as distinct, compared with none.
[[nodiscard]] Distinct all_distinct(std::int64_t images);

}  // namespace spdnn
