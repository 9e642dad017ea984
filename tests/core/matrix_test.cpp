// CSR matrices: compact forms, slices, gathered rows, panels.
#include "spdnn/matrix.hpp"

#include <gtest/gtest.h>

namespace spdnn {
namespace {

TEST(MakeCsr, FindsEqualRowsSharedValuesAndNarrowColumns) {
  const Csr csr = make_csr(2, 3, {0, 2, 4}, {0, 2, 1, 2}, {0.5F, 0.5F, 0.5F, 0.5F});
  EXPECT_EQ(csr.view().row_offsets, nullptr);
  EXPECT_EQ(csr.view().row_nnz, 2);
  EXPECT_TRUE(csr.view().shared_value);
  EXPECT_EQ(csr.view().index_type, DType::u16);
  EXPECT_EQ(csr.view().bytes(), 4 * 2 + 4);
}

TEST(MakeCsr, KeepsWhatIsIrregular) {
  const Csr csr = make_csr(3, 70000, {0, 1, 1, 3}, {69999, 2, 1}, {1.0F, 2.0F, 3.0F});
  const CsrView& v = csr.view();
  EXPECT_EQ(v.index_type, DType::u32);
  EXPECT_FALSE(v.shared_value);
  EXPECT_EQ(v.row_begin(2), 1);
  EXPECT_EQ(v.col(0), 69999);
  EXPECT_EQ(v.col(1), 2);  // the stored order is kept
  EXPECT_EQ(v.value(2), 3.0);
}

TEST(MakeCsr, TellsZeroFromMinusZero) {
  EXPECT_FALSE(make_csr(1, 2, {0, 2}, {0, 1}, {0.0F, -0.0F}).view().shared_value);
}

TEST(MakeCsr, EmptyMatrices) {
  EXPECT_EQ(make_csr(0, 0, {0}, {}, {}).nnz(), 0);
  const Csr rows = make_csr(5, 4, {0, 0, 0, 0, 0, 0}, {}, {});
  EXPECT_EQ(rows.view().row_begin(5), 0);
  EXPECT_FALSE(rows.view().shared_value);
}

TEST(MakeCsr, RefusesContradictions) {
  EXPECT_THROW((void)make_csr(1, 2, {0, 1}, {2}, {1.0F}), InputError);  // column too large
  EXPECT_THROW((void)make_csr(1, 2, {0, 2}, {0}, {1.0F}), InputError);  // offsets past the end
  EXPECT_THROW((void)make_csr(2, 2, {0, 1}, {0}, {1.0F}), InputError);  // an offset missing
  EXPECT_THROW((void)make_csr(2, 2, {0, 1, 0}, {}, {}), InputError);    // decreasing
  EXPECT_THROW((void)make_csr(1, 4, {0, 3}, {0, 1, 2}, {1, 2}), InputError);  // values missing
}

TEST(CsrView, SlicesAreViewsOfTheSameEntries) {
  const Csr uneven = make_csr(3, 9, {0, 1, 4, 6}, {8, 1, 2, 3, 4, 5}, {1, 2, 3, 4, 5, 6});
  const CsrView slice = uneven.view().slice_rows({1, 3});
  EXPECT_EQ(slice.rows, 2);
  EXPECT_EQ(slice.nnz, 5);
  EXPECT_EQ(slice.row_begin(0), 0);
  EXPECT_EQ(slice.row_begin(1), 3);
  EXPECT_EQ(slice.col(3), 4);
  EXPECT_EQ(slice.value(3), 5.0);
  const Csr even = make_csr(2, 9, {0, 2, 4}, {8, 1, 2, 3}, {1, 1, 1, 1});
  EXPECT_EQ(even.view().slice_rows({1, 2}).col(0), 2);
  EXPECT_EQ(even.view().slice_rows({2, 2}).nnz, 0);
}

TEST(GatherRows, TakesRowsInAnyOrderWithRepeats) {
  const Csr from = make_csr(3, 9, {0, 1, 1, 3}, {8, 1, 2}, {1, 2, 3});
  const Csr got = gather_rows(from, {2, 1, 0, 2});
  EXPECT_EQ(got.rows(), 4);
  EXPECT_EQ(got.nnz(), 5);
  EXPECT_EQ(got.view().col(2), 8);
  EXPECT_EQ(got.view().value(4), 3.0);
  EXPECT_EQ(gather_rows(from, {}).rows(), 0);
  EXPECT_EQ(gather_rows(make_csr(2, 2, {0, 0, 0}, {}, {}), {1}).nnz(), 0);
}

TEST(Panels, AddressesFeaturesAndImages) {
  std::vector<float> data(2 * 3 * 4);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
  const Panels<float> panels = {data.data(), 3, 6, 4, nullptr};
  EXPECT_EQ(panels.count(), 2);
  EXPECT_EQ(panels.size(), 24);
  EXPECT_EQ(panels.at(1, 2), 6.0F);
  EXPECT_EQ(panels.at(2, 5), 12.0F + 8.0F + 1.0F);
}

}  // namespace
}  // namespace spdnn
