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

/// A network under way: its layers, and where the original outputs are found.
class Network {
 public:
  Network(const Model& model, const CompileRequest& request);

  [[nodiscard]] std::int64_t layers() const { return std::ssize(model_.layers); }
  [[nodiscard]] const SparseLinear& layer(std::int64_t index) const {
    return std::get<SparseLinear>(model_.layers[index]);
  }
  [[nodiscard]] const CompileRequest& request() const { return request_; }
  [[nodiscard]] const Model& model() const { return model_; }
  [[nodiscard]] Model& model() { return model_; }
  [[nodiscard]] std::vector<std::int64_t>& outputs() { return outputs_; }
  [[nodiscard]] std::int64_t rewritten() const { return rewritten_; }
  /// The threads that passes may use.
  [[nodiscard]] ThreadTeam& team() const { return stream_->team(); }
  /// The time for compiling is up: a pass stops where it is, leaving a network that computes the
  /// same. Once true, always true.
  [[nodiscard]] bool out_of_time() const {
    return request_.most_seconds > 0.0 && now_seconds() > start_ + request_.most_seconds;
  }

  /// Puts a layer in another's place. Throws `OverBudget`.
  void replace(std::int64_t index, SparseLinear layer);
  /// A pass has read the layer and will not come back to it.
  void done_with(std::int64_t index) const;
  /// Original outputs that are output `i` now will be `to[i]`.
  void move_outputs(const std::vector<std::int64_t>& to);

 private:
  Model model_;
  const CompileRequest& request_;
  double start_ = now_seconds();
  std::unique_ptr<Device> threads_;
  std::unique_ptr<Stream> stream_;
  std::vector<std::int64_t> outputs_;  ///< as in `CompiledModel`
  std::vector<std::int64_t> bytes_;    ///< by layer: taken by what replaced it
  std::int64_t total_bytes_ = 0;
  std::int64_t rewritten_ = 0;
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

/// What an image costs in a network, in units of one entry of a matrix with one shared value.
[[nodiscard]] double work_of(const Model& model);

}  // namespace spdnn::compiler
