// Rows in normal form: columns ascending, each once.
#pragma once

#include <vector>

#include "layer_builder.hpp"

namespace spdnn::compiler {

/// Adds up entries of one row that fall on the same column.
class RowMerger {
 public:
  /// `cols` of the rows to be made.
  explicit RowMerger(std::int64_t cols);

  /// Appends `row` in normal form: columns renumbered by `to` (where not empty) and ascending, each
  /// once, none with the sum 0 of several. Sums are taken in float64 and rounded once.
  /// Throws `OutOfRange` where one does not fit fp32.
  void add_row(const CsrView& w, std::int64_t row, const std::vector<Neuron>& to,
               LayerBuilder& out);

 private:
  template <class Column>
  void mark(std::int64_t begin, std::int64_t end, const Column& column_of);

  /// Lists the marked columns in `found_`, unmarks them and returns how many they are.
  std::int64_t list_columns();

  std::vector<std::uint32_t> there_;     ///< by column: entries of the row so far
  std::vector<double> sums_;             ///< by column, where values differ
  std::vector<std::uint64_t> columns_;   ///< a bit for each column that is there
  std::vector<std::uint64_t> occupied_;  ///< a bit for each word of `columns_` that is not 0
  std::vector<Neuron> words_, found_;    ///< lists of either's bits
};

}  // namespace spdnn::compiler
