// Building CSR matrices in the smallest form their data allow.
#include "spdnn/matrix.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace spdnn {
namespace {

/// The arrays of a matrix on the heap.
struct HeapStorage final : Storage {
  std::vector<std::int64_t> row_offsets;
  std::vector<std::uint16_t> narrow;
  std::vector<std::uint32_t> wide;
  std::vector<float> values;
};

void check_arrays(std::int64_t rows, std::int64_t cols, const std::vector<std::int64_t>& offsets,
                  const std::vector<std::uint32_t>& col_indices, std::size_t values) {
  const auto fail = [](const std::string& what) { throw InputError("CSR matrix: " + what); };
  if (rows < 0 || cols < 0 || cols > (std::int64_t{1} << 32)) {
    fail(fmt::format("{} × {} is out of range; columns are at most 2^32", rows, cols));
  }
  if (std::ssize(offsets) != rows + 1) {
    fail(fmt::format("{} row offsets, but {} rows need {}", offsets.size(), rows, rows + 1));
  }
  if (offsets.front() != 0 || offsets.back() != std::ssize(col_indices)) {
    fail(fmt::format("row offsets run from {} to {}, but must run from 0 to the {} entries",
                     offsets.front(), offsets.back(), col_indices.size()));
  }
  if (!std::is_sorted(offsets.begin(), offsets.end())) fail("row offsets must not decrease");
  if (values != col_indices.size() && values != 1) {
    fail(fmt::format("{} values for {} entries; give one each, or one for all", values,
                     col_indices.size()));
  }
  for (const std::uint32_t col : col_indices) {
    if (col >= cols) fail(fmt::format("column {} is not below {}", col, cols));
  }
}

bool equally_long(const std::vector<std::int64_t>& offsets) {
  const auto rows = std::ssize(offsets) - 1;
  const std::int64_t length = rows > 0 ? offsets[1] : 0;
  for (std::int64_t row = 0; row < rows; ++row) {
    if (offsets[row + 1] - offsets[row] != length) return false;
  }
  return true;
}

/// All values have the same bits (so −0 and 0 stay apart).
bool all_equal(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [&](float value) {
    return std::bit_cast<std::uint32_t>(value) == std::bit_cast<std::uint32_t>(values.front());
  });
}

}  // namespace

std::int64_t CsrView::bytes() const {
  const std::int64_t offsets = row_offsets == nullptr ? 0 : rows + 1;
  return offsets * static_cast<std::int64_t>(sizeof(std::int64_t)) +
         nnz * static_cast<std::int64_t>(size_of(index_type)) +
         stored_values() * static_cast<std::int64_t>(size_of(value_type));
}

CsrView CsrView::slice_rows(Range range) const {
  CsrView slice = *this;
  const std::int64_t first = row_begin(range.begin);
  slice.rows = range.size();
  slice.nnz = row_begin(range.end) - first;
  if (row_offsets != nullptr) slice.row_offsets = row_offsets + range.begin;
  slice.col_indices = static_cast<const std::byte*>(col_indices) + first * size_of(index_type);
  if (!shared_value) {
    slice.values = static_cast<const std::byte*>(values) + first * size_of(value_type);
  }
  return slice;
}

Csr make_csr(std::int64_t rows, std::int64_t cols, std::vector<std::int64_t> row_offsets,
             std::vector<std::uint32_t> col_indices, std::vector<float> values) {
  check_arrays(rows, cols, row_offsets, col_indices, values.size());
  auto storage = std::make_shared<HeapStorage>();
  CsrView view;
  view.rows = rows;
  view.cols = cols;
  view.nnz = std::ssize(col_indices);
  if (equally_long(row_offsets)) {
    view.row_nnz = rows > 0 ? row_offsets[1] : 0;
  } else {
    storage->row_offsets = std::move(row_offsets);
    view.row_offsets = storage->row_offsets.data();
  }
  if (cols <= 65536) {
    storage->narrow.assign(col_indices.begin(), col_indices.end());
    view.col_indices = storage->narrow.data();
    view.index_type = DType::u16;
  } else {
    storage->wide = std::move(col_indices);
    view.col_indices = storage->wide.data();
    view.index_type = DType::u32;
  }
  view.shared_value = view.nnz > 0 && all_equal(values);
  if (view.shared_value) values.resize(1);
  if (view.nnz == 0) values.clear();
  values.shrink_to_fit();
  storage->values = std::move(values);
  view.values = storage->values.data();
  return {view, std::move(storage)};
}

Csr gather_rows(const Csr& matrix, const std::vector<std::int64_t>& ids) {
  const CsrView& from = matrix.view();
  std::vector<std::int64_t> row_offsets{0};
  row_offsets.reserve(ids.size() + 1);
  for (const std::int64_t id : ids) {
    row_offsets.push_back(row_offsets.back() + from.row_begin(id + 1) - from.row_begin(id));
  }
  std::vector<std::uint32_t> col_indices;
  std::vector<float> values;
  col_indices.reserve(row_offsets.back());
  for (const std::int64_t id : ids) {
    for (std::int64_t k = from.row_begin(id); k < from.row_begin(id + 1); ++k) {
      col_indices.push_back(static_cast<std::uint32_t>(from.col(k)));
      if (!from.shared_value) values.push_back(static_cast<float>(from.value(k)));
    }
  }
  if (from.shared_value) values.push_back(static_cast<float>(from.value(0)));
  return make_csr(std::ssize(ids), from.cols, std::move(row_offsets), std::move(col_indices),
                  std::move(values));
}

}  // namespace spdnn
