// The CPU's form of a layer's weights: rows that read the same inputs in the same order stand
// together, so that one loaded activation feeds all of them.
#pragma once

#include <cstdint>
#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn {

/// Rows of one block share a list of columns, except in blocks of `own_lists`.
struct RowBlock {
  std::int64_t first = 0;    ///< of its rows in `RowGroups::rows`
  std::int32_t rows = 0;     ///< 1 … RowGroups::kMostRows
  bool own_lists = false;    ///< each row has a list of its own, in the matrix itself
  std::int64_t entries = 0;  ///< of a row, for shared lists
  std::int64_t list = 0;    ///< first entry of the shared list: the matrix's entries of row `first`
  std::int64_t values = 0;  ///< first of entries × rows interleaved values
  std::int64_t work = 0;    ///< edges and rows of the blocks before it
};

/// All rows of a matrix as blocks. Shared lists are read in the matrix itself (at a row of the
/// group); values that differ are stored again, interleaved `[entry][row]`, so that they stream.
struct RowGroups {
  static constexpr std::int32_t kMostRows = 8;
  std::vector<std::int64_t> rows;  ///< row of the matrix, by position
  std::vector<RowBlock> blocks;
  std::vector<float> values;  ///< empty for matrices of one shared value
  std::int64_t work = 0;      ///< edges and rows of all blocks
};

/// Finds rows with equal column lists by hash and full comparison, in O(nnz).
[[nodiscard]] RowGroups find_row_groups(const CsrView& weights);

/// The blocks whose work begins within the piece `[begin, end)` of `of` equal pieces of all work.
[[nodiscard]] Range blocks_in(const RowGroups& groups, std::int64_t begin, std::int64_t end,
                              std::int64_t of);

}  // namespace spdnn
