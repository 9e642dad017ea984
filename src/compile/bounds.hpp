// Intervals that hold every value a neuron can have, whatever the image.
#pragma once

#include <vector>

#include "network.hpp"

namespace spdnn::compiler {

/// A closed interval; infinite where a value may overflow or be no number.
struct Interval {
  double low = 0.0;
  double high = 0.0;
  [[nodiscard]] bool point() const { return low == high; }
};

/// Intervals of a layer's neurons: one for each, or the same for all.
class Bounds {
 public:
  explicit Bounds(Interval all) : all_(all) {}
  explicit Bounds(std::vector<Interval> each) : each_(std::move(each)) {}
  [[nodiscard]] bool uniform() const { return each_.empty(); }
  [[nodiscard]] const Interval& operator[](std::size_t neuron) const {
    return each_.empty() ? all_ : each_[neuron];
  }

 private:
  Interval all_;
  std::vector<Interval> each_;
};

/// What is known of a row before it runs.
struct RowBounds {
  Interval output;  ///< of h(W·x + b)
  std::int64_t droppable =
      0;  ///< entries that are always 0: a weight 0 or an input that is always 0
  std::int64_t constant = 0;  ///< entries whose input is a point, zeros included
};

/// Bounds one row of a layer whose inputs are within `inputs`.
[[nodiscard]] RowBounds bound_row(const SparseLinear& layer, std::int64_t row,
                                  const Bounds& inputs);

/// Bounds of all of a layer's outputs.
[[nodiscard]] Bounds bound_layer(const SparseLinear& layer, const Bounds& inputs);

/// Whether all rows of a layer have the same bounds, so that one of them stands for all.
[[nodiscard]] bool rows_alike(const SparseLinear& layer, const Bounds& inputs);

}  // namespace spdnn::compiler
