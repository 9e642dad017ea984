// Bookkeeping of a network under way.
#include "network.hpp"

#include <algorithm>

namespace spdnn::compiler {

Network::Network(const Model& model, const CompileRequest& request)
    : model_(model), request_(request) {
  // A thread for fewer weights costs more than it saves.
  constexpr std::int64_t kWeightsForAThread = 4'000'000;
  const std::int64_t most = model.edges() / kWeightsForAThread;
  DeviceSpec spec;
  spec.threads = static_cast<int>(std::clamp<std::int64_t>(most, 1, std::max(request.threads, 1)));
  threads_ = open_device(spec);
  stream_ = threads_->make_stream();
}

void Network::replace(std::int64_t index, SparseLinear layer) {
  bytes_.resize(model_.layers.size());
  const std::int64_t bytes = layer.weights.view().bytes();
  total_bytes_ += bytes - bytes_[index];
  bytes_[index] = bytes;
  if (request_.memory_limit > 0 && total_bytes_ > request_.memory_limit) {
    throw OverBudget{total_bytes_};
  }
  done_with(index);
  model_.layers[index] = std::move(layer);
  ++rewritten_;
}

void Network::done_with(std::int64_t index) const {
  const Storage* storage = layer(index).weights.storage();
  if (request_.release_pages && storage != nullptr) storage->release();
}

void Network::move_outputs(const std::vector<std::int64_t>& to) {
  if (outputs_.empty()) {
    outputs_ = to;
    return;
  }
  for (std::int64_t& output : outputs_) output = output < 0 ? -1 : to[output];
}

}  // namespace spdnn::compiler
