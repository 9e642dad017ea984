// Interval arithmetic for sums as kernels take them, in float64 with room for fp32's rounding.
//
// Proof. A kernel's sum of a row is a fixed tree of fp32 additions or FMAs. Each of them rounds
// monotonically, so the result is monotone in every input, rising where the weight is positive:
// over a box of inputs it is highest at the corner with the terms pₖ = max(w·low, w·high), and
// lowest at that with qₖ = min(w·low, w·high). At a corner the fp32 result is within γ(n +
// 2)·(Σ|pₖ| + |b|) of the real sum (plus the smallest subnormal for each product that underflows,
// where any is not 0), whatever the order. One γ more covers the float64 rounding here. Where Σ|pₖ|
// may leave fp32's range the sum may overflow, and the interval is infinite on that side. An
// infinite input or weight, or a weight that is no number, makes a sum here infinite or no number:
// then nothing is claimed, and the row is left alone.
#include "bounds.hpp"

#include <cmath>
#include <limits>

namespace spdnn::compiler {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLargest = std::numeric_limits<float>::max();
constexpr double kSmallest = std::numeric_limits<float>::denorm_min();

/// Sums of one row at the two corners.
struct Corners {
  double high = 0.0, high_size = 0.0;  ///< Σ pₖ, Σ |pₖ|
  double low = 0.0, low_size = 0.0;    ///< Σ qₖ, Σ |qₖ|
};

template <class Index>
void add_entries(const CsrView& w, std::int64_t row, const Index* cols, const Bounds& inputs,
                 Corners& corners, RowBounds& found) {
  const auto* values = static_cast<const float*>(w.values);
  for (std::int64_t k = w.row_begin(row); k < w.row_begin(row + 1); ++k) {
    const double value = values[w.shared_value ? 0 : k];
    const Interval& x = inputs[cols[k]];
    // The larger and the smaller of w·low and w·high, without a branch on the sign of w: max(w, 0)
    // and min(w, 0) are exact so, and one term of each sum is 0.
    const double rising = 0.5 * (value + std::abs(value));
    const double falling = 0.5 * (value - std::abs(value));
    const double p = rising * x.high + falling * x.low;
    const double q = rising * x.low + falling * x.high;
    corners.high += p;
    corners.high_size += std::abs(p);
    corners.low += q;
    corners.low_size += std::abs(q);
    const bool point = x.low == x.high;
    found.constant += point ? 1 : 0;
    found.droppable += value == 0.0 || (point && x.low == 0.0) ? 1 : 0;
  }
}

/// Bounds of h(sum + bias).
Interval output_of(const Corners& corners, std::int64_t entries, double bias, const Epilogue& h) {
  const double nu = static_cast<double>(entries + 3) * std::ldexp(1.0, -24);
  const double gamma = nu < 0.5 ? nu / (1.0 - nu) : kInfinity;
  const double underflow = static_cast<double>(entries) * kSmallest;
  const double size_high = corners.high_size + std::abs(bias);
  const double size_low = corners.low_size + std::abs(bias);
  double high = corners.high + bias + gamma * size_high;
  double low = corners.low + bias - gamma * size_low;
  if (corners.high_size > 0.0) high += underflow;
  if (corners.low_size > 0.0) low -= underflow;
  if (!std::isfinite(high) || !std::isfinite(low)) return {-kInfinity, kInfinity};
  if (size_high * (1.0 + gamma) > kLargest) high = kInfinity;
  if (size_low * (1.0 + gamma) > kLargest) low = -kInfinity;
  return {activate(h, low), activate(h, high)};
}

}  // namespace

RowBounds bound_row(const SparseLinear& layer, std::int64_t row, const Bounds& inputs) {
  const CsrView& w = layer.weights.view();
  const std::int64_t entries = w.row_begin(row + 1) - w.row_begin(row);
  const float bias = bias_of(layer, row);
  RowBounds found;
  if (entries == 0) {
    const double value = activate(layer.activation, bias);
    found.output = {value, value};
    return found;
  }
  Corners corners;
  with_columns(w, [&](const auto* cols) { add_entries(w, row, cols, inputs, corners, found); });
  found.output = output_of(corners, entries, bias, layer.activation);
  return found;
}

Bounds bound_layer(const SparseLinear& layer, const Bounds& inputs) {
  if (rows_alike(layer, inputs)) return Bounds(bound_row(layer, 0, inputs).output);
  std::vector<Interval> outputs;
  for (std::int64_t row = 0; row < layer.outputs(); ++row) {
    outputs.push_back(bound_row(layer, row, inputs).output);
  }
  return Bounds(std::move(outputs));
}

bool rows_alike(const SparseLinear& layer, const Bounds& inputs) {
  const CsrView& w = layer.weights.view();
  return inputs.uniform() && w.shared_value && w.row_offsets == nullptr && layer.bias.size() == 1 &&
         w.rows > 0;
}

}  // namespace spdnn::compiler
