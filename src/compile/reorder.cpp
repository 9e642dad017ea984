// Reordering neurons so that those which are read together stand together.
//
// Proof. Renumbering a layer's outputs by a permutation, and the columns of the next layer by the
// same, changes no value: each row keeps its entries in their stored order, so every chain of FMAs
// is the same, bit for bit. The network's inputs and outputs keep their numbers, so that nothing is
// permuted at run time.
//
// Columns that are read by the same rows become adjacent, sets of them in the order in which rows
// first read them. Going backward, the rows of a layer are in their final order when its columns
// are looked at; within a set the old order is kept, so that a second sweep finds nothing to do.
// Rows are told apart by their lists of columns alone: rows with equal lists read the same.
#include <algorithm>
#include <numeric>
#include <tuple>

#include "equal_rows.hpp"
#include "layer_builder.hpp"

namespace spdnn::compiler {
namespace {

/// New numbers of a layer's inputs; `rows` lists its rows in their new order.
std::vector<Neuron> order_inputs(const CsrView& w, const std::vector<Neuron>& rows) {
  struct Column {
    std::uint64_t readers = 0;  ///< hash of the set of rows that read it
    Neuron first = 0;           ///< where in the new order it is first read; past the last if never
    Neuron number = 0;
  };
  std::vector<Column> columns(static_cast<std::size_t>(w.cols));
  for (std::size_t c = 0; c < columns.size(); ++c) {
    columns[c].first = static_cast<Neuron>(rows.size());
    columns[c].number = static_cast<Neuron>(c);
  }
  with_columns(w, [&](const auto* cols) {
    for (std::size_t at = 0; at < rows.size(); ++at) {
      const std::uint64_t reader = mix(at + 1);
      for (std::int64_t k = w.row_begin(rows[at]); k < w.row_begin(rows[at] + 1); ++k) {
        Column& column = columns[cols[k]];
        column.readers += reader;
        column.first = std::min(column.first, static_cast<Neuron>(at));
      }
    }
  });
  std::sort(columns.begin(), columns.end(), [](const Column& a, const Column& b) {
    return std::tie(a.first, a.readers, a.number) < std::tie(b.first, b.readers, b.number);
  });
  std::vector<Neuron> order;
  for (const Column& column : columns) order.push_back(column.number);
  return order;
}

}  // namespace

bool reorder_neurons(Network& network) {
  const std::int64_t before = network.rewritten();
  std::vector<Neuron> rows(static_cast<std::size_t>(network.layer(network.layers() - 1).outputs()));
  std::iota(rows.begin(), rows.end(), Neuron{0});
  for (std::int64_t l = network.layers(); l-- > 0;) {
    const SparseLinear& layer = network.layer(l);
    const CsrView& w = layer.weights.view();
    std::vector<Neuron> inputs(static_cast<std::size_t>(w.cols));
    std::iota(inputs.begin(), inputs.end(), Neuron{0});
    const bool stop = network.out_of_time();
    if (l > 0 && !stop) inputs = order_inputs(w, rows);
    const bool rows_stay = std::is_sorted(rows.begin(), rows.end());
    if (!rows_stay || !std::is_sorted(inputs.begin(), inputs.end())) {
      std::vector<Neuron> numbers(inputs.size());
      for (std::size_t i = 0; i < inputs.size(); ++i) numbers[inputs[i]] = static_cast<Neuron>(i);
      LayerBuilder moved;
      moved.reserve(w.rows, w.nnz);
      for (const Neuron row : rows) {
        moved.add_row(w, row, numbers);
        moved.end_row(bias_of(layer, row));
      }
      network.replace(l, std::move(moved).finish(w.cols, layer.activation));
    }
    network.done_with(l);
    if (stop) break;
    rows = std::move(inputs);
  }
  return network.rewritten() > before;
}

}  // namespace spdnn::compiler
