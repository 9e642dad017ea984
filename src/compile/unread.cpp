// Leaving out neurons that nobody reads.
//
// Proof. A neuron whose column is empty in the next layer's matrix has no part in any later value.
// Going backward from the outputs, a layer's rows are needed where a needed row of the next layer
// reads them, so that whole chains that lead nowhere go in one sweep. Of the last layer every
// output is needed but those that are always 0: they have no entry and h(b) = 0. The rows that stay
// keep their entries and their order, with columns renumbered: every bit is kept. The network's
// inputs keep their numbers, and each layer keeps one row at least, since kernels take no layers
// without any.
#include <algorithm>

#include "layer_builder.hpp"

namespace spdnn::compiler {
namespace {

/// By neuron of one layer, whether it is needed.
using Needed = std::vector<bool>;

bool all(const Needed& needed) {
  return std::find(needed.begin(), needed.end(), false) == needed.end();
}

/// A layer keeps one row at least.
void keep_one(Needed& needed) {
  if (!needed.empty() && std::find(needed.begin(), needed.end(), true) == needed.end()) {
    needed.front() = true;
  }
}

Needed needed_outputs(const SparseLinear& last) {
  const CsrView& w = last.weights.view();
  Needed needed(static_cast<std::size_t>(w.rows));
  for (std::int64_t row = 0; row < w.rows; ++row) {
    needed[row] = w.row_begin(row + 1) > w.row_begin(row) ||
                  activate(last.activation, bias_of(last, row)) != 0.0F;
  }
  return needed;
}

/// The inputs that the needed rows of a layer read. Stops once that is all of them.
Needed needed_inputs(const CsrView& w, const Needed& rows) {
  Needed needed(static_cast<std::size_t>(w.cols));
  std::int64_t missing = w.cols;
  with_columns(w, [&](const auto* cols) {
    for (std::int64_t row = 0; row < w.rows && missing > 0; ++row) {
      if (!rows[row]) continue;
      for (std::int64_t k = w.row_begin(row); k < w.row_begin(row + 1); ++k) {
        if (needed[cols[k]]) continue;
        needed[cols[k]] = true;
        --missing;
      }
    }
  });
  return needed;
}

/// New numbers of the needed neurons; empty where they are the old ones.
std::vector<Neuron> numbers_of(const Needed& needed) {
  std::vector<Neuron> numbers;
  if (all(needed)) return numbers;
  Neuron next = 0;
  for (const bool n : needed) {
    numbers.push_back(next);
    if (n) ++next;
  }
  return numbers;
}

void rewrite(Network& network, std::int64_t index, const Needed& inputs, const Needed& rows) {
  const SparseLinear& layer = network.layer(index);
  const std::vector<Neuron> to = index == 0 ? std::vector<Neuron>{} : numbers_of(inputs);
  if (to.empty() && all(rows)) return;
  const CsrView& w = layer.weights.view();
  LayerBuilder builder;
  for (std::int64_t row = 0; row < w.rows; ++row) {
    if (!rows[row]) continue;
    builder.add_row(w, row, to);
    builder.end_row(bias_of(layer, row));
  }
  const std::int64_t cols = to.empty() ? w.cols : std::count(inputs.begin(), inputs.end(), true);
  network.replace(index, std::move(builder).finish(cols, layer.activation));
}

}  // namespace

bool drop_unread(Network& network) {
  const std::int64_t before = network.rewritten();
  const Needed outputs = needed_outputs(network.layer(network.layers() - 1));
  std::vector<std::int64_t> to;
  std::int64_t next = 0;
  for (const bool n : outputs) to.push_back(n ? next++ : -1);
  Needed needed = outputs;
  keep_one(needed);
  for (std::int64_t l = network.layers(); l-- > 0;) {
    const CsrView& w = network.layer(l).weights.view();
    const bool stop = network.out_of_time();
    Needed inputs =
        stop ? Needed(static_cast<std::size_t>(w.cols), true) : needed_inputs(w, needed);
    keep_one(inputs);
    rewrite(network, l, inputs, needed);
    network.done_with(l);
    if (stop) break;
    needed = std::move(inputs);
  }
  if (!all(outputs)) network.move_outputs(to);
  return network.rewritten() > before;
}

}  // namespace spdnn::compiler
