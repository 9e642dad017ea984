// Bookkeeping of a network under way.
#include "network.hpp"

#include <algorithm>

namespace spdnn::compiler {

Network::Network(const Model& model, const CompileRequest& request) : request_(request) {
  // A thread for fewer weights costs more than it saves.
  constexpr std::int64_t kWeightsForAThread = 2'000'000;
  const std::int64_t most = model.edges() / kWeightsForAThread;
  DeviceSpec spec;
  spec.threads = static_cast<int>(std::clamp<std::int64_t>(most, 1, std::max(request.threads, 1)));
  threads_ = open_device(spec);
  stream_ = threads_->make_stream();
  state_.model = model;
  for (std::int64_t l = 0; l < layers(); ++l) state_.stands_for.push_back({l, l + 1});
  state_.bytes.resize(model.layers.size());
}

bool Network::out_of_time() {
  const double most = request_.most_seconds;
  stopped_ = stopped_ || (most > 0.0 && now_seconds() > start_ + most);
  return stopped_;
}

void Network::replace(std::int64_t index, SparseLinear layer) {
  const std::int64_t bytes = layer.weights.view().bytes();
  state_.total_bytes += bytes - state_.bytes[index];
  state_.bytes[index] = bytes;
  if (request_.memory_limit > 0 && state_.total_bytes > request_.memory_limit) {
    throw OverBudget{state_.total_bytes};
  }
  done_with(index);
  state_.model.layers[index] = std::move(layer);
  ++state_.rewritten;
}

void Network::remove(std::int64_t index) {
  const Range gone = state_.stands_for[index];
  if (index + 1 < layers()) {
    state_.stands_for[index + 1].begin = gone.begin;
  } else {
    state_.stands_for[index - 1].end = gone.end;
  }
  done_with(index);
  state_.total_bytes -= state_.bytes[index];
  state_.bytes.erase(state_.bytes.begin() + index);
  state_.stands_for.erase(state_.stands_for.begin() + index);
  state_.model.layers.erase(state_.model.layers.begin() + index);
  ++state_.rewritten;
}

void Network::done_with(std::int64_t index) const {
  const Storage* storage = layer(index).weights.storage();
  if (request_.release_pages && storage != nullptr) storage->release();
}

void Network::move_outputs(const std::vector<std::int64_t>& to) {
  if (state_.outputs.empty()) {
    state_.outputs = to;
    return;
  }
  for (std::int64_t& output : state_.outputs) output = output < 0 ? -1 : to[output];
}

}  // namespace spdnn::compiler
