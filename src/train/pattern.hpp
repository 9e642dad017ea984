// The connections of a layer while it is trained: by rows, by columns, and which version they are.
#pragma once

#include <cstdint>
#include <vector>

#include "spdnn/train_op.hpp"

namespace spdnn::train {

/// A pattern `[rows × cols]` that owns its arrays. Each change of the connections bumps the version
/// and rebuilds the view by columns.
class Pattern {
 public:
  Pattern() = default;
  /// Every input connected with every output; no arrays.
  [[nodiscard]] static Pattern dense(std::int64_t rows, std::int64_t cols);
  /// `row_offsets` has rows + 1 entries from 0 on; the columns of a row ascend. Throws `InputError`
  /// where they do not, or pass `cols`.
  Pattern(std::int64_t rows, std::int64_t cols, std::vector<std::int64_t> row_offsets,
          std::vector<std::uint32_t> col_indices);

  [[nodiscard]] bool is_dense() const noexcept { return is_dense_; }
  [[nodiscard]] std::int64_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::int64_t cols() const noexcept { return cols_; }
  /// Connections, of a dense pattern as well.
  [[nodiscard]] std::int64_t nnz() const noexcept { return is_dense() ? rows_ * cols_ : nnz_; }
  /// Connections that go into an output.
  [[nodiscard]] std::int64_t fan_in(std::int64_t row) const {
    return is_dense() ? cols_ : row_offsets_[row + 1] - row_offsets_[row];
  }
  [[nodiscard]] const std::vector<std::int64_t>& row_offsets() const noexcept {
    return row_offsets_;
  }
  [[nodiscard]] const std::vector<std::uint32_t>& col_indices() const noexcept {
    return col_indices_;
  }
  [[nodiscard]] PatternView view() const;
  [[nodiscard]] std::int64_t version() const noexcept { return version_; }
  /// Bytes of the arrays by rows and by columns.
  [[nodiscard]] std::int64_t csr_bytes() const;
  [[nodiscard]] std::int64_t csc_bytes() const;

  /// The shape and the number of connections without the arrays: not `is_known`.
  [[nodiscard]] Pattern shape() const;
  /// The rows of `range` alone.
  [[nodiscard]] Pattern slice_rows(Range range) const;
  /// Other connections between the same neurons; the rules are those of the constructor.
  void replace(std::vector<std::int64_t> row_offsets, std::vector<std::uint32_t> col_indices);
  /// The connections change in a device's memory: a new version, of which only the shape and the
  /// number of connections are known here, and no array, until `recall` brings it.
  void forget();
  void recall(std::vector<std::int64_t> row_offsets, std::vector<std::uint32_t> col_indices);
  [[nodiscard]] bool is_known() const noexcept { return is_dense() || !row_offsets_.empty(); }

 private:
  void check() const;
  void build_columns();

  bool is_dense_ = true;
  std::int64_t rows_ = 0, cols_ = 0, nnz_ = 0, version_ = 0;
  std::vector<std::int64_t> row_offsets_, col_offsets_;
  std::vector<std::uint32_t> col_indices_, row_indices_, entries_;
};

}  // namespace spdnn::train
