// What a device has of a pattern and of values, beside what the host makes of them.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <vector>

#include "host_view.hpp"
#include "pattern.hpp"

namespace spdnn::test {

/// Numbers as bits, so that NaNs are equal and zeros are not.
inline std::vector<std::uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<std::uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

template <class T>
std::vector<T> read(const T* from, std::int64_t count, const Device& device, Stream& stream) {
  const train::HostView<T> view(from, count, device, stream);
  return {view.data(), view.data() + count};
}

/// The arrays that a device has of a pattern are those that the host makes of it.
inline void expect_arrays(const PatternView& got, const train::Pattern& pattern,
                          const Device& device, Stream& stream) {
  const PatternView expected = pattern.view();
  const auto expect = [&](auto member, std::int64_t count, const char* what) {
    EXPECT_EQ(read(got.*member, count, device, stream),
              std::vector(expected.*member, expected.*member + count))
        << what;
  };
  ASSERT_EQ(got.nnz, expected.nnz);
  expect(&PatternView::row_offsets, expected.rows + 1, "row offsets");
  expect(&PatternView::col_indices, expected.nnz, "columns");
  expect(&PatternView::col_offsets, expected.cols + 1, "column offsets");
  expect(&PatternView::row_indices, expected.nnz, "rows");
  expect(&PatternView::entries, expected.nnz, "entries");
}

}  // namespace spdnn::test
