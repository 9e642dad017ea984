// Leaving out what cannot matter: entries that are always 0, and neurons that are always the same.
//
// Proof. `bounds.cpp` gives for every neuron an interval that holds its value for every image whose
// inputs are in the range stated.
// * An entry whose weight or input is 0 adds ±0 to the row's chain of FMAs, and s + ±0 = s bit for
// bit,
//   but for the sign of s = 0. Sums that differ in the sign of a zero differ in nothing else later.
// * A neuron whose interval is one point c (its ReLU never opens, or it is always clipped) has the
//   value c = h(c): it keeps that with no entry and the bias c.
// * A neuron that reads constants only has the value of its chain on them, which is taken here with
// the
//   FMAs of canonical order.
// So far every bit is kept (`drop_zeros`). `drop_constants` also moves entries of constant inputs c
// ≠ 0 into the bias: b + Σ w·c, taken in float64 and rounded once, which is another order of the
// same sum and within its bound. Rows that read what may overflow, and rows with weights that are
// not finite, are left alone: there a product with 0 may be no number. Neurons that nobody reads
// any more are left to `unread.cpp`.
#include <atomic>
#include <cmath>

#include "bounds.hpp"
#include "layer_builder.hpp"

namespace spdnn::compiler {
namespace {

/// Rows that a thread judges before it looks for more: some tens of microseconds' work.
constexpr std::int64_t kRowsAtOnce = 512;

/// What becomes of one row.
struct Verdict {
  Interval output;
  bool constant = false;  ///< runs as a bias alone
  bool shorter = false;   ///< loses entries
};

/// The value of a row all of whose inputs are points, in canonical order.
float canonical_value(const SparseLinear& layer, std::int64_t row, const Bounds& inputs) {
  const CsrView& w = layer.weights.view();
  float sum = 0.0F;
  for (std::int64_t k = w.row_begin(row); k < w.row_begin(row + 1); ++k) {
    const auto x = static_cast<float>(inputs[static_cast<std::size_t>(w.col(k))].low);
    sum = std::fma(static_cast<float>(w.value(k)), x, sum);
  }
  return activate(layer.activation, sum + bias_of(layer, row));
}

Verdict judge(const SparseLinear& layer, std::int64_t row, const Bounds& inputs,
              bool move_constants) {
  const CsrView& w = layer.weights.view();
  const std::int64_t entries = w.row_begin(row + 1) - w.row_begin(row);
  const RowBounds bounds = bound_row(layer, row, inputs);
  Verdict verdict = {bounds.output, false, false};
  if (entries == 0 || !std::isfinite(bounds.output.low) || !std::isfinite(bounds.output.high)) {
    return verdict;
  }
  if (bounds.constant == entries) {
    const double value = canonical_value(layer, row, inputs);
    verdict.output = {value, value};
  }
  verdict.constant = verdict.output.point();
  verdict.shorter = bounds.droppable > 0 || (move_constants && bounds.constant > 0);
  return verdict;
}

/// Appends a row without the entries that are always 0, and with those that are constant in its
/// bias where they are moved.
void add_shorter_row(const SparseLinear& layer, std::int64_t row, const Bounds& inputs,
                     bool move_constants, LayerBuilder& out) {
  const CsrView& w = layer.weights.view();
  double bias = bias_of(layer, row);
  for (std::int64_t k = w.row_begin(row); k < w.row_begin(row + 1); ++k) {
    const double value = w.value(k);
    const auto col = static_cast<Neuron>(w.col(k));
    const Interval& x = inputs[col];
    if (value == 0.0 || (x.point() && x.low == 0.0)) continue;
    if (move_constants && x.point()) {
      bias += value * x.low;
    } else {
      out.add(col, static_cast<float>(value));
    }
  }
  out.end_row(static_cast<float>(bias));
}

/// Rewrites a layer and returns the bounds of its outputs.
Bounds rewrite_layer(Network& network, std::int64_t index, const Bounds& inputs,
                     bool move_constants) {
  const SparseLinear& layer = network.layer(index);
  const CsrView& w = layer.weights.view();
  if (rows_alike(layer, inputs)) {
    const Verdict all = judge(layer, 0, inputs, move_constants);
    if (!all.constant && !all.shorter) return Bounds(all.output);
  }
  std::vector<Verdict> verdicts(static_cast<std::size_t>(w.rows));
  std::vector<Interval> outputs(verdicts.size());
  std::atomic<bool> changed = false;
  network.team().parallel_for(w.rows, kRowsAtOnce, [&](std::int64_t begin, std::int64_t end) {
    bool found = false;
    for (std::int64_t row = begin; row < end; ++row) {
      verdicts[row] = judge(layer, row, inputs, move_constants);
      outputs[row] = verdicts[row].output;
      found = found || verdicts[row].constant || verdicts[row].shorter;
    }
    if (found) changed = true;
  });
  if (!changed) return Bounds(std::move(outputs));
  LayerBuilder rows;
  for (std::int64_t row = 0; row < w.rows; ++row) {
    const Verdict& verdict = verdicts[row];
    if (verdict.constant) {
      rows.end_row(static_cast<float>(verdict.output.low));
    } else if (verdict.shorter) {
      add_shorter_row(layer, row, inputs, move_constants, rows);
    } else {
      rows.add_row(w, row);
      rows.end_row(bias_of(layer, row));
    }
  }
  network.replace(index, std::move(rows).finish(w.cols, layer.activation));
  return Bounds(std::move(outputs));
}

bool sweep(Network& network, bool move_constants) {
  const std::int64_t before = network.rewritten();
  const CompileRequest& request = network.request();
  Bounds bounds(Interval{request.lowest_input, request.highest_input});
  for (std::int64_t l = 0; l < network.layers() && !network.out_of_time(); ++l) {
    bounds = rewrite_layer(network, l, bounds, move_constants);
    network.done_with(l);
  }
  return network.rewritten() > before;
}

}  // namespace

bool drop_zeros(Network& network) { return sweep(network, false); }

bool drop_constants(Network& network) { return sweep(network, true); }

}  // namespace spdnn::compiler
