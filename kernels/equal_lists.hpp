// Rows of a matrix that read the same columns in the same order.
#pragma once

#include <cstdint>
#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn {

/// All rows, those with equal lists together, groups in order of their first row.
struct RowsByList {
  std::vector<std::uint32_t> rows;
  std::vector<std::size_t> begins;  ///< where groups begin in `rows`, and its end
};

/// Finds equal lists by hash and full comparison, in O(nnz). Fewer than 2³² − 1 rows.
[[nodiscard]] RowsByList group_by_list(const CsrView& weights);

}  // namespace spdnn
