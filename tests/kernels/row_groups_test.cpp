// Grouping rows by their column lists.
#include "cpu/row_groups.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/networks.hpp"

namespace spdnn {
namespace {

/// Every row stands in one block, shared lists are the rows' own, values are the rows' own.
void check(const CsrView& w, const RowGroups& groups) {
  std::vector<std::int64_t> rows = groups.rows;
  std::sort(rows.begin(), rows.end());
  ASSERT_EQ(std::ssize(rows), w.rows);
  for (std::int64_t r = 0; r < w.rows; ++r) ASSERT_EQ(rows[r], r);
  std::int64_t next = 0;
  for (const RowBlock& block : groups.blocks) {
    ASSERT_EQ(block.first, next);
    next += block.rows;
    if (block.own_lists) {
      ASSERT_TRUE(block.rows == 4 || block.rows == 1);
      continue;
    }
    ASSERT_TRUE(block.rows == 8 || block.rows == 4 || block.rows == 2);
    for (std::int32_t r = 0; r < block.rows; ++r) {
      const std::int64_t row = groups.rows[block.first + r];
      ASSERT_EQ(w.row_begin(row + 1) - w.row_begin(row), block.entries);
      for (std::int64_t k = 0; k < block.entries; ++k) {
        ASSERT_EQ(w.col(w.row_begin(row) + k), w.col(block.list + k));
        if (w.shared_value) continue;
        ASSERT_EQ(static_cast<double>(groups.values[block.values + k * block.rows + r]),
                  w.value(w.row_begin(row) + k));
      }
    }
  }
  ASSERT_EQ(next, w.rows);
}

std::int64_t rows_in_groups(const RowGroups& groups) {
  std::int64_t rows = 0;
  for (const RowBlock& block : groups.blocks) rows += block.own_lists ? 0 : block.rows;
  return rows;
}

TEST(RowGroups, FindsRepeatedListsWhereverTheyStand) {
  // Five lists of three columns, each used by rows i, i + 5, i + 10, …: 13 rows and 12 for the
  // rest.
  for (const bool shared : {false, true}) {
    std::vector<std::int64_t> offsets = {0};
    std::vector<std::uint32_t> cols;
    std::vector<float> values;
    for (std::uint32_t row = 0; row < 61; ++row) {
      for (std::uint32_t k = 0; k < 3; ++k) {
        cols.push_back((row % 5) * 7 + 2 * k);
        values.push_back(shared ? 1.0F : static_cast<float>(row) + static_cast<float>(k) / 8.0F);
      }
      offsets.push_back(std::ssize(cols));
    }
    const Csr w = make_csr(61, 40, offsets, cols, values);
    const RowGroups groups = find_row_groups(w.view());
    check(w.view(), groups);
    EXPECT_EQ(rows_in_groups(groups), 60);  // one list is left with a single row: 13 = 8 + 4 + 1
    EXPECT_EQ(groups.values.empty(), shared);
  }
}

TEST(RowGroups, OrderOfColumnsMatters) {
  const Csr w = make_csr(2, 9, {0, 2, 4}, {1, 2, 2, 1}, {1.0F});
  EXPECT_EQ(rows_in_groups(find_row_groups(w.view())), 0);
}

TEST(RowGroups, EmptyRowsFormAGroup) {
  const Csr w = make_csr(9, 9, std::vector<std::int64_t>(10, 0), {}, {});
  const RowGroups groups = find_row_groups(w.view());
  check(w.view(), groups);
  EXPECT_EQ(rows_in_groups(groups), 8);
}

TEST(RowGroups, RandomMatricesAreCovered) {
  std::mt19937_64 random(9);
  for (const std::int64_t rows : {0, 1, 3, 4, 5, 100, 1000}) {
    for (const std::int64_t row_nnz : {1, 2, 20}) {  // short lists repeat often
      const Csr w = test::random_csr({rows, 17, row_nnz, test::Rows::irregular, false}, random);
      const RowGroups groups = find_row_groups(w.view());
      check(w.view(), groups);
      if (HasFatalFailure()) return;
    }
  }
}

}  // namespace
}  // namespace spdnn
