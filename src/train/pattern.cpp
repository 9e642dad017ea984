// Checking patterns and turning rows into columns.
#include "pattern.hpp"

#include <fmt/format.h>

#include <limits>

namespace spdnn::train {
namespace {

template <class T>
std::int64_t bytes_of(const std::vector<T>& array) {
  return std::ssize(array) * static_cast<std::int64_t>(sizeof(T));
}

}  // namespace

Pattern Pattern::dense(std::int64_t rows, std::int64_t cols) {
  Pattern pattern;
  pattern.rows_ = rows;
  pattern.cols_ = cols;
  return pattern;
}

Pattern::Pattern(std::int64_t rows, std::int64_t cols, std::vector<std::int64_t> row_offsets,
                 std::vector<std::uint32_t> col_indices)
    : is_dense_(false),
      rows_(rows),
      cols_(cols),
      row_offsets_(std::move(row_offsets)),
      col_indices_(std::move(col_indices)) {
  check();
  build_columns();
  nnz_ = std::ssize(col_indices_);
}

void Pattern::replace(std::vector<std::int64_t> row_offsets,
                      std::vector<std::uint32_t> col_indices) {
  recall(std::move(row_offsets), std::move(col_indices));
  ++version_;
}

void Pattern::forget() {
  for (auto* array : {&row_offsets_, &col_offsets_}) *array = {};
  for (auto* array : {&col_indices_, &row_indices_, &entries_}) *array = {};
  ++version_;
}

void Pattern::recall(std::vector<std::int64_t> row_offsets,
                     std::vector<std::uint32_t> col_indices) {
  row_offsets_ = std::move(row_offsets);
  col_indices_ = std::move(col_indices);
  check();
  build_columns();
  nnz_ = std::ssize(col_indices_);
}

void Pattern::check() const {
  const auto fail = [&](const std::string& what) {
    throw InputError(fmt::format("pattern of {} × {} connections: {}", rows_, cols_, what));
  };
  if (std::ssize(row_offsets_) != rows_ + 1 || row_offsets_.front() != 0 ||
      row_offsets_.back() != std::ssize(col_indices_)) {
    fail(
        fmt::format("{} offsets for {} entries; expected one more than rows, from 0 to the "
                    "number of entries",
                    row_offsets_.size(), col_indices_.size()));
  }
  if (std::ssize(col_indices_) > std::numeric_limits<std::uint32_t>::max()) {
    fail(fmt::format("{} entries; at most {}", col_indices_.size(),
                     std::numeric_limits<std::uint32_t>::max()));
  }
  // All of them before any column: where none falls, none is past the last one either.
  for (std::int64_t row = 0; row < rows_; ++row) {
    if (row_offsets_[row] > row_offsets_[row + 1]) {
      fail(fmt::format("the offsets fall after row {}", row));
    }
  }
  for (std::int64_t row = 0; row < rows_; ++row) {
    for (std::int64_t k = row_offsets_[row]; k < row_offsets_[row + 1]; ++k) {
      if (col_indices_[k] >= cols_ ||
          (k > row_offsets_[row] && col_indices_[k] <= col_indices_[k - 1])) {
        fail(fmt::format("row {} has column {} out of order or range; columns must ascend", row,
                         col_indices_[k]));
      }
    }
  }
}

void Pattern::build_columns() {
  col_offsets_.assign(static_cast<std::size_t>(cols_ + 1), 0);
  row_indices_.resize(col_indices_.size());
  entries_.resize(col_indices_.size());
  for (const std::uint32_t col : col_indices_) ++col_offsets_[col + 1];
  for (std::int64_t col = 0; col < cols_; ++col) col_offsets_[col + 1] += col_offsets_[col];
  std::vector<std::int64_t> next(col_offsets_.begin(), col_offsets_.end() - 1);
  for (std::int64_t row = 0; row < rows_; ++row) {
    for (std::int64_t k = row_offsets_[row]; k < row_offsets_[row + 1]; ++k) {
      const std::int64_t at = next[col_indices_[k]]++;
      row_indices_[at] = static_cast<std::uint32_t>(row);
      entries_[at] = static_cast<std::uint32_t>(k);
    }
  }
}

Pattern Pattern::shape() const {
  Pattern shape;
  shape.is_dense_ = is_dense_;
  shape.rows_ = rows_;
  shape.cols_ = cols_;
  shape.nnz_ = nnz_;
  return shape;
}

Pattern Pattern::slice_rows(Range range) const {
  if (is_dense()) return dense(range.size(), cols_);
  const auto first = row_offsets_[range.begin];
  std::vector<std::int64_t> offsets(row_offsets_.begin() + range.begin,
                                    row_offsets_.begin() + range.end + 1);
  for (std::int64_t& offset : offsets) offset -= first;
  return {range.size(),
          cols_,
          std::move(offsets),
          {col_indices_.begin() + first, col_indices_.begin() + row_offsets_[range.end]}};
}

PatternView Pattern::view() const {
  PatternView view;
  view.rows = rows_;
  view.cols = cols_;
  view.nnz = nnz();
  if (is_dense()) return view;
  view.row_offsets = row_offsets_.data();
  view.col_indices = col_indices_.data();
  view.col_offsets = col_offsets_.data();
  view.row_indices = row_indices_.data();
  view.entries = entries_.data();
  return view;
}

std::int64_t Pattern::csr_bytes() const { return bytes_of(row_offsets_) + bytes_of(col_indices_); }

std::int64_t Pattern::csc_bytes() const {
  return bytes_of(col_offsets_) + bytes_of(row_indices_) + bytes_of(entries_);
}

}  // namespace spdnn::train
