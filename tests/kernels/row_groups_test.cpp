// Grouping rows by their column lists.
#include "cpu/row_groups.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/networks.hpp"

namespace spdnn {
namespace {

/// Entry k of the row at position r of a block: where its column and its value stand, counted from
/// the block's first.
struct Place {
  std::int64_t column, value;
};
Place place_of(const RowGroups& groups, const RowBlock& block, std::int64_t r, std::int64_t k) {
  if (!block.own_lists) return {k, k * block.rows + r};
  if (k < block.entries) return {k * block.rows + r, k * block.rows + r};
  std::int64_t rest = std::int64_t{block.entries} * block.rows + k - block.entries;
  for (std::int64_t before = 0; before < r; ++before) {
    rest += groups.lengths[block.first + before] - block.entries;
  }
  return {rest, rest};
}

/// Every row stands in one block with its own columns and values, in their order.
void check(const CsrView& w, const RowGroups& groups) {
  std::vector<std::uint32_t> rows = groups.rows;
  std::sort(rows.begin(), rows.end());
  ASSERT_EQ(std::ssize(rows), w.rows);
  for (std::int64_t r = 0; r < w.rows; ++r) ASSERT_EQ(rows[r], r);
  std::int64_t next = 0;
  for (const RowBlock& block : groups.blocks) {
    ASSERT_EQ(block.first, next);
    next += block.rows;
    if (block.own_lists) {
      ASSERT_TRUE(block.rows == RowGroups::kOwnRows || block.rows == 1);
    } else {
      ASSERT_TRUE(block.rows == 8 || block.rows == 4 || block.rows == 2);
    }
    for (std::int32_t r = 0; r < block.rows; ++r) {
      const std::int64_t row = groups.rows[block.first + r];
      const std::int64_t length = w.row_begin(row + 1) - w.row_begin(row);
      if (block.own_lists) {
        ASSERT_EQ(groups.lengths.at(block.first + r), length);
      }
      ASSERT_LE(block.entries, length);
      ASSERT_TRUE(block.own_lists || block.entries == length);
      for (std::int64_t k = 0; k < length; ++k) {
        const Place at = place_of(groups, block, r, k);
        ASSERT_EQ(w.index_type == DType::u16 ? groups.columns16.at(block.columns + at.column)
                                             : groups.columns32.at(block.columns + at.column),
                  w.col(w.row_begin(row) + k));
        if (w.shared_value) continue;
        ASSERT_EQ(static_cast<double>(groups.values.at(block.values + at.value)),
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
  for (const std::int64_t rows : {0, 1, 3, 4, 5, 7, 8, 100, 1000}) {
    for (const std::int64_t row_nnz : {1, 2, 20, 60}) {  // short lists repeat often
      for (const std::int64_t cols : {17, 90, 70000}) {
        if (rows * cols > 500000) continue;
        const Csr w = test::random_csr({rows, cols, row_nnz, test::Rows::irregular, false}, random);
        check(w.view(), find_row_groups(w.view()));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(RowGroups, ListsThatDifferInOnePlaceAreToldApart) {
  // Long lists with equal ends and middles: hashes of parts of them collide.
  const std::int64_t rows = 300;
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> cols;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::uint32_t k = 0; k < 64; ++k) cols.push_back(2 * k);
    cols[cols.size() - 64 + 7] = static_cast<std::uint32_t>(1000 + row / 2);
    offsets.push_back(std::ssize(cols));
  }
  const Csr w = make_csr(rows, 2000, offsets, cols, {1.0F});
  const RowGroups groups = find_row_groups(w.view());
  check(w.view(), groups);
  EXPECT_EQ(rows_in_groups(groups), rows);
}

TEST(RowGroups, OneLongRowAmongShortOnes) {
  std::mt19937_64 random(10);
  const Csr w = test::random_csr({6, 5000, 1, test::Rows::one_dense, false}, random);
  const RowGroups groups = find_row_groups(w.view());
  check(w.view(), groups);
  EXPECT_EQ(groups.lengths.front(), 5000U);
}

TEST(RowGroups, EqualListsAreStoredOnce) {
  const Csr w = make_csr(16, 9, {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32},
                         {3, 5, 3, 5, 3, 5, 3, 5, 3, 5, 3, 5, 3, 5, 3, 5,
                          3, 5, 3, 5, 3, 5, 3, 5, 3, 5, 3, 5, 3, 5, 3, 5},
                         {1.0F});
  // And one list more for kernels that read ahead.
  EXPECT_EQ(find_row_groups(w.view()).columns16, (std::vector<std::uint16_t>{3, 5, 0, 0}));
}

}  // namespace
}  // namespace spdnn
