// The form of weights in which rows share their lists of columns.
#include <gtest/gtest.h>

#include <algorithm>

#include "cuda/row_blocks.hpp"
#include "support/networks.hpp"

namespace spdnn {
namespace {

/// Every row stands in one block, the block's list is its own, and so are its values.
void check(const CsrView& w, const cuda::RowBlocks& made, int most_rows) {
  std::vector<std::uint32_t> rows = made.rows;
  std::sort(rows.begin(), rows.end());
  ASSERT_EQ(std::ssize(rows), w.rows);
  for (std::int64_t r = 0; r < w.rows; ++r) ASSERT_EQ(rows[r], r);
  std::int64_t next = 0;
  for (const cuda::RowBlock& block : made.blocks) {
    ASSERT_EQ(block.first, next);
    next += block.rows;
    ASSERT_TRUE(block.rows >= 1 && block.rows <= most_rows && most_rows % block.rows == 0);
    ASSERT_EQ(block.values % 4, 0);
    for (std::int32_t r = 0; r < block.rows; ++r) {
      const std::int64_t row = made.rows[block.first + r];
      ASSERT_EQ(w.row_begin(row + 1) - w.row_begin(row), block.entries);
      for (std::int64_t k = 0; k < block.entries; ++k) {
        ASSERT_EQ(w.col(w.row_begin(row) + k), w.col(block.list + k));
        if (w.shared_value) continue;
        const double value =
            block.rows == 1 ? w.value(block.list + k)
                            : static_cast<double>(made.values[block.values + k * block.rows + r]);
        ASSERT_EQ(value, w.value(w.row_begin(row) + k));
      }
    }
  }
  ASSERT_EQ(next, w.rows);
}

TEST(CudaRowBlocks, HoldTheMatrix) {
  std::mt19937_64 random(9);
  for (const std::int64_t rows : {0, 1, 3, 16, 17, 100, 1000}) {
    for (const auto pattern : {test::Rows::irregular, test::Rows::grouped, test::Rows::empty}) {
      for (const std::int64_t row_nnz : {1, 2, 20}) {  // short lists repeat often
        const Csr w = test::random_csr({rows, 37, row_nnz, pattern, row_nnz == 2}, random);
        for (const int most : {1, 4, 16}) {
          check(w.view(), cuda::make_row_blocks(w.view(), most), most);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(CudaRowBlocks, FindRepeatedListsWhereverTheyStand) {
  // Three lists, each used by rows i, i + 3, i + 6, …: 21 rows and 20.
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> cols;
  for (std::uint32_t row = 0; row < 61; ++row) {
    for (std::uint32_t k = 0; k < 3; ++k) cols.push_back((row % 3) * 7 + 2 * k);
    offsets.push_back(std::ssize(cols));
  }
  const Csr w = make_csr(61, 40, offsets, cols, {1.0F});
  std::vector<int> sizes;
  for (const cuda::RowBlock& block : cuda::make_row_blocks(w.view(), 16).blocks) {
    sizes.push_back(block.rows);
  }
  EXPECT_EQ(sizes, (std::vector<int>{16, 4, 1, 16, 4, 16, 4}));
}

TEST(CudaRowBlocks, OrderOfColumnsMatters) {
  const Csr w = make_csr(2, 9, {0, 2, 4}, {1, 2, 2, 1}, {1.0F});
  EXPECT_EQ(cuda::make_row_blocks(w.view(), 16).blocks.size(), 2U);
}

TEST(CudaRowBlocks, NeighboursReadNeighbouringInputs) {
  std::mt19937_64 random(3);
  const Csr w = test::random_csr({200, 90, 4, test::Rows::equal, false}, random);
  std::int64_t last = 0;
  for (const cuda::RowBlock& block : cuda::make_row_blocks(w.view(), 16).blocks) {
    std::int64_t smallest = w.cols();
    for (std::int64_t k = 0; k < block.entries; ++k) {
      smallest = std::min(smallest, w.view().col(block.list + k));
    }
    EXPECT_LE(last, smallest);
    last = smallest;
  }
}

}  // namespace
}  // namespace spdnn
