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
// Cost: each row is read once as stored (`equal_rows.cpp`). Only the first of each kind is merged
// and hashed, so that the work beyond one reading of the network is in proportion to what is kept.
// Where nothing was merged before and columns do not ascend, a second hash, blind to their order,
// tells whether merging can find anything. Threads take a window of layers together: each guesses
// that the layer before has no duplicates but those that it has as stored, and where that is wrong
// the layer is folded again.
#include <algorithm>
#include <numeric>
#include <optional>

#include "equal_rows.hpp"
#include "layer_builder.hpp"
#include "row_merger.hpp"

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

/// The classes of `inner`'s classes under `outer`.
Classes compose(const Classes& inner, const Classes& outer) {
  Classes both;
  both.of.reserve(inner.of.size());
  for (const Neuron c : inner.of) both.of.push_back(outer.of[c]);
  for (const Neuron c : outer.first) both.first.push_back(inner.first[c]);
  return both;
}

/// What a layer becomes.
struct Folded {
  std::optional<SparseLinear> layer;  ///< nothing where it stays
  Classes outputs;
};

/// `rows` of a layer as they are.
SparseLinear keep_rows(const SparseLinear& layer, const std::vector<Neuron>& rows) {
  LayerBuilder kept;
  for (const Neuron row : rows) {
    kept.add_row(layer.weights.view(), row);
    kept.end_row(bias_of(layer, row));
  }
  return std::move(kept).finish(layer.inputs(), layer.activation);
}

/// `rows` of a layer in normal form, its columns merged to classes of inputs.
LayerBuilder merge_rows(const SparseLinear& layer, const std::vector<Neuron>& rows,
                        const Classes& inputs) {
  const CsrView& w = layer.weights.view();
  std::int64_t entries = 0;
  for (const Neuron row : rows) entries += w.row_begin(row + 1) - w.row_begin(row);
  LayerBuilder merged;
  merged.reserve(std::ssize(rows), entries);
  RowMerger merger(inputs.trivial() ? w.cols : std::ssize(inputs.first));
  const std::vector<Neuron> as_they_are;
  for (const Neuron row : rows) {
    merger.add_row(w, row, inputs.trivial() ? as_they_are : inputs.of, merged);
    merged.end_row(bias_of(layer, row));
  }
  return merged;
}

/// Folds a layer whose inputs were folded to `inputs` and whose rows as stored are of classes
/// `stored`.
Folded fold_layer(const SparseLinear& layer, const Classes& inputs, const Classes& stored) {
  const CsrView& w = layer.weights.view();
  if (inputs.trivial() && ascending(w, stored.first)) {
    if (stored.trivial()) return {std::nullopt, stored};
    return {keep_rows(layer, stored.first), stored};
  }
  if (inputs.trivial() && stored.trivial() && surely_distinct(w, layer.bias)) {
    return {std::nullopt, stored};
  }
  const std::int64_t cols = inputs.trivial() ? w.cols : std::ssize(inputs.first);
  LayerBuilder merged = merge_rows(layer, stored.first, inputs);
  const Classes normal = find_equal_rows(merged.view(cols), merged.bias());
  if (normal.trivial()) return {std::move(merged).finish(cols, layer.activation), stored};
  LayerBuilder distinct;
  for (const Neuron row : normal.first) {
    distinct.add_row(merged.view(cols), row);
    distinct.end_row(merged.bias()[row]);
  }
  return {std::move(distinct).finish(cols, layer.activation), compose(stored, normal)};
}

/// Layers that threads take together: enough that waking them costs little.
constexpr std::int64_t kWindow = 16;

/// Goes forward over the layers, a window at a time.
class Folder {
 public:
  explicit Folder(Network& network) : network_(network) {
    const int threads = network.team().size();
    if (threads > 1) window_ = network.request().release_pages ? threads : kWindow;
  }

  void run() {
    for (Range window; window.end < network_.layers();) {
      window = {window.end, std::min(window.end + window_, network_.layers())};
      if (network_.out_of_time()) {
        stop_at(window.begin);
        return;
      }
      guess(window);
      for (std::int64_t l = window.begin; l < window.end; ++l) take(window, l);
    }
    if (!inputs_.trivial()) network_.move_outputs({inputs_.of.begin(), inputs_.of.end()});
  }

 private:
  /// The classes that a window's layer is taken to get its inputs in.
  [[nodiscard]] const Classes& guessed(const Range& window, std::int64_t l) const {
    return l == window.begin ? inputs_ : stored_[l - 1 - window.begin];
  }

  void guess(const Range& window) {
    stored_.resize(static_cast<std::size_t>(window.size()));
    folded_.resize(stored_.size());
    const auto for_each = [&](const auto& body) {
      network_.team().parallel_for(window.size(), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t l = window.begin + begin; l < window.begin + end; ++l) {
          body(l, network_.layer(l));
        }
      });
    };
    for_each([&](std::int64_t l, const SparseLinear& layer) {
      stored_[l - window.begin] = find_equal_rows(layer.weights.view(), layer.bias);
    });
    for_each([&](std::int64_t l, const SparseLinear& layer) {
      folded_[l - window.begin] = fold_layer(layer, guessed(window, l), stored_[l - window.begin]);
    });
  }

  void take(const Range& window, std::int64_t l) {
    Folded& folded = folded_[l - window.begin];
    if (l > window.begin && guessed(window, l) != inputs_) {
      folded = fold_layer(network_.layer(l), inputs_, stored_[l - window.begin]);
    }
    if (folded.layer) network_.replace(l, *std::move(folded.layer));
    network_.done_with(l);
    inputs_ = std::move(folded.outputs);
  }

  /// The time is up: a layer's columns are merged as its inputs were, and the rest stays.
  void stop_at(std::int64_t l) {
    if (inputs_.trivial()) return;
    const SparseLinear& layer = network_.layer(l);
    std::vector<Neuron> rows(static_cast<std::size_t>(layer.outputs()));
    std::iota(rows.begin(), rows.end(), Neuron{0});
    network_.replace(
        l, merge_rows(layer, rows, inputs_).finish(std::ssize(inputs_.first), layer.activation));
  }

  Network& network_;
  std::int64_t window_ = 1;  ///< layers taken together
  Classes inputs_;           ///< of the next layer; those of the network are trivial
  std::vector<Classes> stored_;
  std::vector<Folded> folded_;
};

}  // namespace

bool fold_duplicates(Network& network) {
  const std::int64_t before = network.rewritten();
  Folder(network).run();
  return network.rewritten() > before;
}

}  // namespace spdnn::compiler
