// Merging identical images.
#include "distinct.hpp"

#include <gtest/gtest.h>

namespace spdnn {
namespace {

TEST(FindDistinct, MergesOnlyWhatIsIdentical) {
  // Rows 0 and 2 are equal; row 3 has the same columns with another value; row 4 is empty, as
  // row 5.
  const Csr images = make_csr(6, 9, {0, 2, 3, 5, 7, 7, 7}, {1, 4, 4, 1, 4, 1, 4},
                              {1.0F, 2.0F, 2.0F, 1.0F, 2.0F, 1.0F, 3.0F});
  const Distinct distinct = find_distinct(images.view());
  EXPECT_EQ(distinct.ids, (std::vector<std::int64_t>{0, 1, 3, 4}));
  EXPECT_EQ(distinct.of, (std::vector<std::int64_t>{0, 1, 0, 2, 3, 3}));
}

TEST(FindDistinct, SharedValuesCompareByColumns) {
  const Csr images = make_csr(3, 9, {0, 1, 2, 3}, {1, 2, 1}, {1.0F});
  EXPECT_EQ(find_distinct(images.view()).of, (std::vector<std::int64_t>{0, 1, 0}));
}

TEST(AllDistinct, KeepsEveryImage) {
  EXPECT_EQ(all_distinct(3).of, (std::vector<std::int64_t>{0, 1, 2}));
}

}  // namespace
}  // namespace spdnn
