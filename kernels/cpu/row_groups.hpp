// The CPU's form of a layer's weights: rows that read the same inputs in the same order stand
// together, so that one loaded activation feeds all of them; and everything stands in the order in
// which it is used, so that it streams from memory.
#pragma once

#include <cstdint>
#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn {

/// Rows that are summed side by side. They share a list of columns, or each has a list of its own.
struct RowBlock {
  std::int64_t columns = 0;   ///< first of its columns in `RowGroups`
  std::int64_t values = 0;    ///< first of its values
  std::uint32_t first = 0;    ///< of its rows in `RowGroups::rows`
  std::uint32_t entries = 0;  ///< of the shared list; as many as all own lists have, 0 for one list
  std::uint16_t rows = 0;     ///< shared: 8, 4 or 2; own: RowGroups::kOwnRows or 1
  bool own_lists = false;
  std::int64_t work = 0;  ///< edges and rows of the blocks before it
};

/// All rows of a matrix as blocks.
///
/// A shared list is stored once for all blocks of its rows, with values `[entry][row]`. Lists of
/// their own are stored `[entry][row]` up to the shortest one, and then what is left of each row;
/// their values stand in the same way. Behind the last columns stand as many zeros as the longest
/// shared list has entries, so that a block may read the list after its own, whatever that is.
struct RowGroups {
  static constexpr int kMostRows = 8;
  static constexpr int kOwnRows = 12;
  std::vector<std::uint32_t> rows;     ///< row of the matrix, by position
  std::vector<std::uint32_t> lengths;  ///< entries of rows with own lists, which stand first
  std::vector<RowBlock> blocks;
  std::vector<std::uint16_t> columns16;  ///< where the matrix has 16-bit columns
  std::vector<std::uint32_t> columns32;  ///< where it has 32-bit columns
  std::vector<float> values;             ///< empty for matrices of one shared value
  std::int64_t work = 0;                 ///< edges and rows of all blocks
};

/// Finds rows with equal column lists by hash and full comparison, in O(nnz).
[[nodiscard]] RowGroups find_row_groups(const CsrView& weights);

/// The blocks whose work begins within the piece `[begin, end)` of `of` equal pieces of all work.
[[nodiscard]] Range blocks_in(const RowGroups& groups, std::int64_t begin, std::int64_t end,
                              std::int64_t of);

}  // namespace spdnn
