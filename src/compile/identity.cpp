// Leaving out layers that only pass values on.
//
// Proof. Let every row of a layer have one entry of weight 1 and the bias 0, and let its activation
// change no value that its input can have (`bounds.cpp`; values that may overflow are not taken).
// The row's chain is fma(1, x, 0) + 0 = x, but for the sign of a zero, so its output is its input,
// bit for bit. What reads output r of the layer may read input col(r) in its place: the next layer
// gets its columns renumbered, with its entries in their order, which keeps every bit. Of the last
// layer the outputs themselves are found elsewhere; it goes only where each of its inputs is one of
// them, since otherwise the layer before would show values that are none of the network's outputs.
// One layer stays in any case, since kernels take no network without any.
#include <algorithm>
#include <cmath>

#include "bounds.hpp"
#include "layer_builder.hpp"

namespace spdnn::compiler {
namespace {

/// Each row has one entry of weight 1, and the bias 0.
bool selects(const SparseLinear& layer) {
  const CsrView& w = layer.weights.view();
  if (w.rows == 0 || w.row_offsets != nullptr || w.row_nnz != 1) return false;
  const auto zero = [](float b) { return b == 0.0F; };
  return w.shared_value && w.value(0) == 1.0 &&
         std::all_of(layer.bias.begin(), layer.bias.end(), zero);
}

/// The activation changes none of the values that a layer's inputs can have.
bool passes_on(const SparseLinear& layer, const Bounds& inputs) {
  const CsrView& w = layer.weights.view();
  const Epilogue& h = layer.activation;
  for (std::int64_t row = 0; row < w.rows; ++row) {
    const Interval& x = inputs[static_cast<std::size_t>(w.col(row))];
    if (!std::isfinite(x.low) || !std::isfinite(x.high)) return false;
    if (x.low < static_cast<double>(h.lower) || x.high > static_cast<double>(h.upper)) return false;
  }
  return true;
}

/// By row, the input it passes on.
std::vector<Neuron> sources_of(const CsrView& w) {
  std::vector<Neuron> sources;
  for (std::int64_t row = 0; row < w.rows; ++row) {
    sources.push_back(static_cast<Neuron>(w.col(row)));
  }
  return sources;
}

/// Each of `count` inputs is passed on exactly once.
bool one_to_one(const std::vector<Neuron>& sources, std::int64_t count) {
  std::vector<bool> there(static_cast<std::size_t>(count));
  for (const Neuron source : sources) there[source] = true;
  return std::ssize(sources) == count &&
         std::find(there.begin(), there.end(), false) == there.end();
}

/// Takes a layer out where that can be done.
bool bypass(Network& network, std::int64_t index) {
  const CsrView& w = network.layer(index).weights.view();
  const std::vector<Neuron> sources = sources_of(w);
  if (network.layers() == 1) return false;
  if (index + 1 == network.layers()) {
    if (!one_to_one(sources, w.cols)) return false;
    network.move_outputs({sources.begin(), sources.end()});
  } else {
    const SparseLinear& next = network.layer(index + 1);
    LayerBuilder rows;
    for (std::int64_t row = 0; row < next.outputs(); ++row) {
      rows.add_row(next.weights.view(), row, sources);
      rows.end_row(bias_of(next, row));
    }
    network.replace(index + 1, std::move(rows).finish(w.cols, next.activation));
  }
  network.remove(index);
  return true;
}

}  // namespace

bool drop_identities(Network& network) {
  const std::int64_t before = network.rewritten();
  std::int64_t last = -1;  // candidate; intervals are needed up to there
  for (std::int64_t l = 0; l < network.layers(); ++l) {
    if (selects(network.layer(l))) last = l;
  }
  Bounds bounds(Interval{network.request().lowest_input, network.request().highest_input});
  for (std::int64_t l = 0; l <= last && !network.out_of_time();) {
    const SparseLinear& layer = network.layer(l);
    if (selects(layer) && passes_on(layer, bounds) && bypass(network, l)) {
      --last;
      continue;
    }
    bounds = bound_layer(layer, bounds);
    network.done_with(l++);
  }
  return network.rewritten() > before;
}

}  // namespace spdnn::compiler
