// A layer's rows in blocks that share a list of columns, so that one loaded activation feeds all
// rows of a block. Plain C++, built on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn::cuda {

inline constexpr int kMostBlockRows = 16;

/// Rows that read the same columns in the same order.
struct RowBlock {
  std::int64_t list = 0;     ///< its first entry: the matrix's entries of the block's first row
  std::int64_t entries = 0;  ///< of each row
  std::int64_t values = 0;  ///< first of entries × rows values, a multiple of 4; two rows and more
  std::uint32_t first = 0;  ///< of its rows in `RowBlocks::rows`
  std::int32_t rows = 0;    ///< 16, 8, 4, 2 or 1
};

/// All rows of a matrix as blocks. Lists, and the values of single rows, are the matrix's own; the
/// values of larger blocks are stored again, interleaved `[entry][row]`, so that they stream.
struct RowBlocks {
  std::vector<std::uint32_t> rows;  ///< row of the matrix, by position
  std::vector<RowBlock> blocks;
  std::vector<float> values;  ///< empty for matrices of one shared value
};

/// Makes blocks of at most `most_rows` (a power of two up to `kMostBlockRows`), ordered by the
/// smallest column they read, so that neighbours find each other's inputs in a cache. Takes O(nnz).
[[nodiscard]] RowBlocks make_row_blocks(const CsrView& weights, int most_rows);

}  // namespace spdnn::cuda
