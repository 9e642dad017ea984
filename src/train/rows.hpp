// Rows of a layer with all that belongs to them, which is what moves when rows change hands:
// between ranks, to one rank for a checkpoint, and back from it to any number of ranks.
#pragma once

#include <span>
#include <vector>

#include "pattern.hpp"
#include "spdnn/comm.hpp"
#include "spdnn/partition.hpp"

namespace spdnn::train {

/// Some rows of a layer's weights, columns in their original numbers. Of a pooling there are none.
template <class T>
struct LayerRows {
  Pattern pattern;
  std::vector<std::vector<T>> values;  ///< by array: the parameters, then the optimiser's state
  std::vector<std::vector<T>> biases;  ///< by array
};

/// The same for somebody to read, wherever it lies.
template <class T>
struct RowsView {
  const Pattern* pattern;
  std::vector<std::span<const T>> values, biases;  ///< by array
};
template <class T>
[[nodiscard]] RowsView<T> view_of(const LayerRows<T>& rows) {
  return {&rows.pattern,
          {rows.values.begin(), rows.values.end()},
          {rows.biases.begin(), rows.biases.end()}};
}

/// The rows `units` alone, in that order.
[[nodiscard]] Pattern select_rows(const Pattern& pattern, std::span<const std::uint32_t> units);
template <class T>
[[nodiscard]] LayerRows<T> select_rows(const LayerRows<T>& rows,
                                       std::span<const std::uint32_t> units);

/// All rows on one rank.
[[nodiscard]] LayerPartition all_on(int rank, int ranks, std::int64_t rows);

/// Moves rows of a layer from their owners under `from` to those under `to`: each rank gives what
/// it had, in the order of `from`, and gets what it has then, in the order of `to`. All ranks call
/// it, with as many arrays and columns.
template <class T>
[[nodiscard]] LayerRows<T> move_rows(Communicator& comm, const LayerPartition& from,
                                     const LayerPartition& to, LayerRows<T> rows);

/// From rows under `units` to columns, each of which goes to the rank that `column_owners` names.
/// A rank gets all rows of the layer with the entries of its own columns alone, in their original
/// numbers; of a dense layer just these columns, ascending. Biases stay with the owners of the
/// rows; those of others' are 0. All ranks call it.
template <class T>
[[nodiscard]] LayerRows<T> rows_to_columns(Communicator& comm, const LayerPartition& units,
                                           const std::vector<std::uint32_t>& column_owners,
                                           const LayerRows<T>& rows);
/// And back, from what `rows_to_columns` returns.
template <class T>
[[nodiscard]] LayerRows<T> columns_to_rows(Communicator& comm, const LayerPartition& units,
                                           const std::vector<std::uint32_t>& column_owners,
                                           const LayerRows<T>& columns);

}  // namespace spdnn::train
