// Folding: neurons of a layer that always have the same output become one.
//
// Proof. Let layer l compute y = h(W·x + b), and let rows i and j of [W | b] be equal as multisets
// of (column, value). In real arithmetic yᵢ = yⱼ for every x, so the next layer's terms over the
// two are vᵢ·yᵢ + vⱼ·yⱼ = (vᵢ + vⱼ)·yᵢ: leaving j out and adding its column to i's changes no later
// value. By induction over the layers this holds for the whole network, and the last layer's
// outputs are found again through the map from neurons to classes. Going forward, the rows of a
// layer are compared after their columns were added up, so that duplicates of duplicates are found
// in the same sweep, and none is left after it. In fp32 the sum of the columns is rounded once
// (from float64), terms are summed in ascending order of columns, and those that cancel are left
// out: this pass is not bit-exact. Merged weights differ by one rounding from their sum, which is
// within the bound of the merged terms themselves.
//
// Cost: each row is hashed once as stored. Only the first of each kind is merged and hashed again,
// so that the work beyond one hash of the network is in proportion to what is kept. Where nothing
// was merged before and columns do not ascend, a second hash, blind to their order, tells whether
// merging can find anything.
#include <algorithm>

#include "equal_rows.hpp"
#include "layer_builder.hpp"

namespace spdnn::compiler {
namespace {

/// Whether columns ascend in every one of `rows`, which are then in normal form.
bool ascending(const CsrView& w, const std::vector<Neuron>& rows) {
  return with_columns(w, [&](const auto* cols) {
    for (const Neuron row : rows) {
      const std::int64_t end = w.row_begin(row + 1);
      bool rising = true;
      for (std::int64_t k = w.row_begin(row) + 1; k < end; ++k) rising &= cols[k - 1] < cols[k];
      if (!rising) return false;
    }
    return true;
  });
}

/// Adds up entries of one row that fall on the same column.
class Merger {
 public:
  explicit Merger(std::int64_t cols)
      : sums_(static_cast<std::size_t>(cols)), there_(static_cast<std::size_t>(cols)) {}

  /// Appends `row` in normal form: columns renumbered by `to` (where not empty) and ascending, each
  /// once, none with the sum 0 of several.
  void add_row(const CsrView& w, std::int64_t row, const std::vector<Neuron>& to,
               LayerBuilder& out) {
    with_columns(w, [&](const auto* cols) {
      const auto* values = static_cast<const float*>(w.values);
      for (std::int64_t k = w.row_begin(row); k < w.row_begin(row + 1); ++k) {
        const Neuron col = to.empty() ? cols[k] : to[cols[k]];
        if (there_[col] == 0) cols_.push_back(col);
        ++there_[col];
        sums_[col] += static_cast<double>(values[w.shared_value ? 0 : k]);
      }
    });
    std::sort(cols_.begin(), cols_.end());
    for (const Neuron col : cols_) {
      const auto value = static_cast<float>(sums_[col]);
      if (value != 0.0F || there_[col] == 1) out.add(col, value);
      sums_[col] = 0.0;
      there_[col] = 0;
    }
    cols_.clear();
  }

 private:
  std::vector<double> sums_;          ///< by column
  std::vector<std::uint32_t> there_;  ///< by column: entries of the row so far
  std::vector<Neuron> cols_;          ///< of the row
};

/// The classes of `inner`'s classes under `outer`.
Classes compose(const Classes& inner, const Classes& outer) {
  Classes both;
  both.of.reserve(inner.of.size());
  for (const Neuron c : inner.of) both.of.push_back(outer.of[c]);
  for (const Neuron c : outer.first) both.first.push_back(inner.first[c]);
  return both;
}

/// Folds a layer whose inputs were folded to `inputs`, and returns the classes of its outputs.
Classes fold_layer(Network& network, std::int64_t index, const Classes& inputs) {
  const SparseLinear& layer = network.layer(index);
  const CsrView& w = layer.weights.view();
  const Classes stored = find_equal_rows(w, layer.bias);
  const bool same_inputs = inputs.trivial();
  LayerBuilder rows;
  if (same_inputs && ascending(w, stored.first)) {
    if (stored.trivial()) return stored;
    for (const Neuron row : stored.first) {
      rows.add_row(w, row);
      rows.end_row(bias_of(layer, row));
    }
    network.replace(index, std::move(rows).finish(w.cols, layer.activation));
    return stored;
  }
  if (same_inputs && stored.trivial() && surely_distinct(w, layer.bias)) return stored;
  const std::int64_t cols = same_inputs ? w.cols : std::ssize(inputs.first);
  const std::vector<Neuron> as_they_are;
  Merger merger(cols);
  for (const Neuron row : stored.first) {
    merger.add_row(w, row, same_inputs ? as_they_are : inputs.of, rows);
    rows.end_row(bias_of(layer, row));
  }
  const CsrView merged = rows.view(cols);
  const Classes normal = find_equal_rows(merged, rows.bias());
  if (normal.trivial()) {
    network.replace(index, std::move(rows).finish(cols, layer.activation));
    return stored;
  }
  LayerBuilder distinct;
  for (const Neuron row : normal.first) {
    distinct.add_row(merged, row);
    distinct.end_row(rows.bias()[row]);
  }
  network.replace(index, std::move(distinct).finish(cols, layer.activation));
  return compose(stored, normal);
}

}  // namespace

bool fold_duplicates(Network& network) {
  const std::int64_t before = network.rewritten();
  Classes classes;  // of the network's inputs: trivial
  for (std::int64_t l = 0; l < network.layers(); ++l) {
    classes = fold_layer(network, l, classes);
    network.done_with(l);
  }
  if (!classes.trivial()) network.move_outputs({classes.of.begin(), classes.of.end()});
  return network.rewritten() > before;
}

}  // namespace spdnn::compiler
