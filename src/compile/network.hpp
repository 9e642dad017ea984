// The network as passes rewrite it, in place and layer by layer.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "spdnn/compile.hpp"

namespace spdnn::compiler {

/// Number of a neuron within its layer.
using Neuron = std::uint32_t;

/// Thrown where rewritten layers would take more memory than they may; the network given is kept.
struct OverBudget {
  std::int64_t bytes;
};

/// Thrown where a weight would leave fp32's range; the pass's work is undone.
struct OutOfRange {};

/// A network under way: its layers, and where the original layers and outputs are found.
class Network {
 public:
  /// All that passes change.
  struct State {
    Model model;
    std::vector<std::int64_t> outputs;  ///< as in `CompiledModel`
    std::vector<Range> stands_for;      ///< `CompiledModel::layers`
    std::vector<std::int64_t> bytes;    ///< by layer: taken by what replaced it
    std::int64_t total_bytes = 0;
    std::int64_t rewritten = 0;  ///< layers, counted each time
  };

  Network(const Model& model, const CompileRequest& request);

  [[nodiscard]] std::int64_t layers() const { return std::ssize(state_.model.layers); }
  [[nodiscard]] const SparseLinear& layer(std::int64_t index) const {
    return std::get<SparseLinear>(state_.model.layers[index]);
  }
  [[nodiscard]] const CompileRequest& request() const { return request_; }
  [[nodiscard]] const State& state() const { return state_; }
  [[nodiscard]] std::int64_t rewritten() const { return state_.rewritten; }
  /// The threads that passes may use.
  [[nodiscard]] ThreadTeam& team() const { return stream_->team(); }
  /// The time for compiling is up: a pass stops where it is, leaving a network that computes the
  /// same.
  [[nodiscard]] bool out_of_time();
  /// A pass was told so.
  [[nodiscard]] bool stopped() const { return stopped_; }

  /// Puts a layer in another's place. Throws `OverBudget`.
  void replace(std::int64_t index, SparseLinear layer);
  /// Leaves a layer out: the next one, or else the one before, stands for it too.
  void remove(std::int64_t index);
  /// A pass has read the layer and will not come back to it.
  void done_with(std::int64_t index) const;
  /// Original outputs that are output `i` now will be `to[i]`.
  void move_outputs(const std::vector<std::int64_t>& to);
  void restore(State state) { state_ = std::move(state); }

 private:
  const CompileRequest& request_;
  double start_ = now_seconds();
  bool stopped_ = false;
  std::unique_ptr<Device> threads_;
  std::unique_ptr<Stream> stream_;
  State state_;
};

/// Bias of one output of a layer.
[[nodiscard]] inline float bias_of(const SparseLinear& layer, std::int64_t row) {
  return layer.bias[layer.bias.size() == 1 ? 0 : row];
}
/// h(v).
template <class T>
[[nodiscard]] T activate(const Epilogue& h, T v) {
  const T raised = v > static_cast<T>(h.lower) ? v : static_cast<T>(h.lower);
  return raised < static_cast<T>(h.upper) ? raised : static_cast<T>(h.upper);
}

/// Calls `body` with the columns of a matrix as a typed pointer.
template <class Body>
decltype(auto) with_columns(const CsrView& w, const Body& body) {
  return w.index_type == DType::u16 ? body(static_cast<const std::uint16_t*>(w.col_indices))
                                    : body(static_cast<const std::uint32_t*>(w.col_indices));
}

// The passes. Each goes once over the network and returns whether it changed anything; it need not
// go again until another pass has.
bool fold_duplicates(Network& network);
bool drop_zeros(Network& network);
bool drop_constants(Network& network);
bool drop_unread(Network& network);
bool drop_identities(Network& network);
bool reorder_neurons(Network& network);

}  // namespace spdnn::compiler
