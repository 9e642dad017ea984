// Rows of a new layer, appended one at a time.
#pragma once

#include <vector>

#include "network.hpp"

namespace spdnn::compiler {

/// Collects the rows of a layer in plain arrays, which `finish` stores in the smallest form.
class LayerBuilder {
 public:
  /// Makes room for so many rows and entries in all.
  void reserve(std::int64_t rows, std::int64_t entries);
  /// Appends an entry to the row under way.
  void add(Neuron col, float value) {
    cols_.push_back(col);
    values_.push_back(value);
  }
  /// Appends entries of `row` of a layer as they are, with the columns renumbered where `to` is not
  /// empty.
  void add_row(const CsrView& w, std::int64_t row, const std::vector<Neuron>& to = {});
  /// Appends `count` entries to the row under way, to be written by the caller before the next
  /// call.
  struct Entries {
    Neuron* cols;
    float* values;
  };
  [[nodiscard]] Entries grow(std::int64_t count);
  /// Takes the last `count` entries of the row under way back.
  void cut(std::int64_t count);
  void end_row(float bias);

  [[nodiscard]] std::int64_t rows() const { return std::ssize(offsets_) - 1; }
  [[nodiscard]] const std::vector<float>& bias() const { return bias_; }
  /// The rows so far as a matrix of `cols` columns.
  [[nodiscard]] CsrView view(std::int64_t cols) const;
  [[nodiscard]] SparseLinear finish(std::int64_t cols, Epilogue activation) &&;

 private:
  std::vector<std::int64_t> offsets_{0};
  std::vector<Neuron> cols_;
  std::vector<float> values_;
  std::vector<float> bias_;
};

}  // namespace spdnn::compiler
