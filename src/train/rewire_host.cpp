// Connections changed in the host's memory: rows come to one rank, which decides for all of them.
#include <algorithm>
#include <optional>
#include <utility>

#include "host_view.hpp"
#include "rewire.hpp"

namespace spdnn::train {
namespace {

void move_values(float* values, const NextPattern& next) {
  const std::vector<float> old(values, values + next.source.size());
  for (std::size_t i = 0; i < next.source.size(); ++i) {
    values[i] = next.source[i] < 0 ? 0.0F : old[next.source[i]];
  }
}

/// Gives the first rank's decision to the others with the same rows: unlike devices round unlike,
/// and of two connections that are nearly as small one could drop this one and one that.
void tell(Communicator& data, const Pattern& pattern, NextPattern& next) {
  const std::int64_t rows = pattern.rows();
  const std::int64_t nnz = pattern.nnz();
  std::vector<std::int64_t> words = std::move(next.row_offsets);
  words.insert(words.end(), next.source.begin(), next.source.end());
  words.insert(words.end(), next.col_indices.begin(), next.col_indices.end());
  words.resize(static_cast<std::size_t>(rows + 1 + 2 * nnz));
  std::vector<std::int64_t> counts(static_cast<std::size_t>(data.size()));
  counts[0] = std::ssize(words);
  data.all_gather(words.data(), words.data(), counts, DType::i64, nullptr);
  const auto source = words.begin() + rows + 1;
  next.row_offsets.assign(words.begin(), source);
  next.source.assign(source, source + nnz);
  next.col_indices.assign(source + nnz, words.end());
  next.grown = std::count(source, source + nnz, -1);
}

/// What brings all of a layer's inputs, where a rank's slice reads some of them; else nothing.
std::optional<Halo> halo_of_inputs(const Worker& worker, std::size_t layer) {
  if (layer == 0 || worker.model().size() == 1) return std::nullopt;
  return halo_of_all(worker.model(), worker.layers(), worker.partition(), worker.shard(), layer);
}

class HostRewirer final : public Rewirer {
 public:
  HostRewirer(const TrainSpec& spec, Worker& worker, Communicator& data)
      : Rewirer(spec, worker, data), all_(worker.layers().size()), next_(worker.layers().size()) {}
  void observe(std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient,
               double part_done) override;
  std::int64_t apply(double part_done) override;

 private:
  [[nodiscard]] std::vector<float> gradient_of_all(std::size_t layer,
                                                   const AnyBatchPass<float>::GradientOn& gradient);

  /// On the first rank: the rows of each layer and what becomes of them.
  std::vector<LayerRows<float>> all_;
  std::vector<NextPattern> next_;
};

/// The gradient of every connection there could be, on the first rank of all.
std::vector<float> HostRewirer::gradient_of_all(
    std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient_on) {
  Network<float>& network = worker_.network();
  const TrainLayer& whole = worker_.layers()[layer];
  const std::int64_t cols = whole.pattern.cols();
  Stream& stream = network.stream();
  const TrainLayer own = {Pattern::dense(std::ssize(worker_.shard().units[layer]), cols),
                          whole.activation, whole.form};
  const std::int64_t places = own.pattern.nnz();
  const Buffer gradient = network.device().allocate(
      static_cast<std::size_t>(places + own.pattern.rows()) * sizeof(float));
  if (!shares_memory(network.device())) {
    device_bytes_ = std::max(device_bytes_, static_cast<std::int64_t>(gradient.bytes()));
  }
  auto* values = gradient.as<float>();
  const std::optional<Halo> halo = halo_of_inputs(worker_, layer);
  gradient_on(own, 0, halo ? &*halo : nullptr, values, values + places);
  if (data_.size() > 1) {
    data_.all_reduce(values, values, places, DType::f32, Reduction::sum,
                     shares_memory(network.device()) ? nullptr : &stream);
  }
  if (data_.rank() > 0) return {};
  const HostView<float> found(values, places, network.device(), stream);
  LayerRows<float> rows;
  rows.pattern = Pattern::dense(own.pattern.rows(), cols);
  rows.values.resize(1);
  std::vector<std::size_t> order = worker_.places(layer);
  rows.values[0].resize(static_cast<std::size_t>(places));
  for (std::size_t i = 0; i < order.size(); ++i) {
    std::copy_n(found.data() + static_cast<std::int64_t>(i) * cols, cols,
                rows.values[0].begin() + static_cast<std::int64_t>(order[i]) * cols);
  }
  rows.biases.emplace_back(order.size());
  LayerRows<float> all =
      move_rows(worker_.model(), worker_.partition()[layer],
                all_on(0, worker_.model().size(), whole.units()), std::move(rows));
  return std::move(all.values[0]);
}

void HostRewirer::observe(std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient_on,
                          double part_done) {
  if (!is_sparse(layer)) return;
  std::vector<float> gradient = gradient_of_all(layer, gradient_on);
  all_[layer] = worker_.gather(layer, worker_.arrays());
  if (worker_.model().rank() != 0 || data_.rank() != 0) return;
  std::vector<float> scratch(gradient.size());
  const LayerRows<float>& rows = all_[layer];
  next_[layer] = grow_largest(rows.pattern, rows.values[0].data(),
                              count_for(rows.pattern, part_done), gradient, scratch);
  host_bytes_ =
      std::max(host_bytes_, 2 * std::ssize(gradient) * static_cast<std::int64_t>(sizeof(float)));
}

std::int64_t HostRewirer::apply(double part_done) {
  Communicator& model = worker_.model();
  std::int64_t grown = 0;
  std::vector<LayerRows<float>> rows;
  for (std::size_t l = 0; l < next_.size(); ++l) {
    if (!is_sparse(l)) {
      rows.push_back(worker_.rows(l, worker_.arrays()));
      continue;
    }
    LayerRows<float> all =
        needs_gradient() ? std::exchange(all_[l], {}) : worker_.gather(l, worker_.arrays());
    if (model.rank() == 0) {
      if (!needs_gradient() && data_.rank() == 0) {
        next_[l] = grow_random(all.pattern, all.values[0].data(), count_for(all.pattern, part_done),
                               spec_.seed, grow_stream(l));
      }
      NextPattern next = std::exchange(next_[l], {});
      if (data_.size() > 1) tell(data_, all.pattern, next);
      for (std::vector<float>& values : all.values) move_values(values.data(), next);
      grown += next.grown;
      all.pattern.replace(std::move(next.row_offsets), std::move(next.col_indices));
    }
    rows.push_back(move_rows(model, all_on(0, model.size(), worker_.layers()[l].units()),
                             worker_.partition()[l], std::move(all)));
  }
  worker_.load(worker_.partition(), std::move(rows));
  model.all_reduce(&grown, &grown, 1, DType::i64, Reduction::sum, nullptr);
  return grown;
}

}  // namespace

std::unique_ptr<Rewirer> make_host_rewirer(const TrainSpec& spec, Worker& worker,
                                           Communicator& data) {
  return std::make_unique<HostRewirer>(spec, worker, data);
}

}  // namespace spdnn::train
