// Connections decided on the host, where ranks share the rows of a layer: they come to the first of
// these ranks, which decides for all of them.
#include <algorithm>
#include <optional>
#include <utility>

#include "host_view.hpp"
#include "rewire.hpp"

namespace spdnn::train {
namespace {

/// What brings all of a layer's inputs, where a rank's slice reads some of them; else nothing.
std::optional<Halo> halo_of_inputs(const Worker& worker, std::size_t layer) {
  if (layer == 0) return std::nullopt;
  return halo_of_all(worker.model(), worker.layers(), worker.partition(), worker.shard(), layer);
}

class SharedRewirer final : public Rewirer {
 public:
  SharedRewirer(const TrainSpec& spec, Worker& worker, Communicator& data)
      : Rewirer(spec, worker, data), next_(worker.layers().size()) {}
  void observe(std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient,
               double part_done) override;
  std::int64_t apply(double part_done) override;

 private:
  [[nodiscard]] std::vector<float> gradient_of_all(std::size_t layer,
                                                   const AnyBatchPass<float>::GradientOn& gradient);

  /// On the first rank: what becomes of each layer.
  std::vector<NextPattern> next_;
};

/// The gradient of every connection there could be, on the first rank of all.
std::vector<float> SharedRewirer::gradient_of_all(
    std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient_on) {
  Network<float>& network = worker_.network();
  const TrainLayer& whole = worker_.layers()[layer];
  const std::int64_t cols = whole.pattern.cols();
  const TrainLayer own = {Pattern::dense(std::ssize(worker_.shard().units[layer]), cols),
                          whole.activation, whole.form};
  const std::int64_t places = own.pattern.nnz();
  const Buffer gradient = network.device().allocate(
      static_cast<std::size_t>(places + own.pattern.rows()) * sizeof(float));
  std::int64_t& counted = shares_memory(network.device()) ? host_bytes_ : device_bytes_;
  counted = std::max(counted, static_cast<std::int64_t>(gradient.bytes()));
  auto* values = gradient.as<float>();
  const std::optional<Halo> halo = halo_of_inputs(worker_, layer);
  gradient_on(own, 0, halo ? &*halo : nullptr, values, values + places);
  sum(values, places);
  if (data_.rank() > 0) return {};
  const HostView<float> found(values, places, network.device(), network.stream());
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

void SharedRewirer::observe(std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient_on,
                            double part_done) {
  if (!is_sparse(layer)) return;
  const std::vector<float> gradient = gradient_of_all(layer, gradient_on);
  const LayerRows<float> rows = worker_.gather(layer, 1);
  if (worker_.model().rank() != 0 || data_.rank() != 0) return;
  GrowLargest choice(rows.pattern, rows.values[0].data(), count_for(rows.pattern, part_done));
  choice.weigh(gradient);
  count_bytes(std::ssize(gradient) * static_cast<std::int64_t>(sizeof(float)) + choice.bytes());
  next_[layer] = choice.finish();
}

std::int64_t SharedRewirer::apply(double part_done) {
  Communicator& model = worker_.model();
  std::int64_t grown = 0;
  std::vector<LayerRows<float>> rows;
  for (std::size_t l = 0; l < next_.size(); ++l) {
    if (!is_sparse(l)) {
      rows.push_back(worker_.rows(l, worker_.arrays()));
      continue;
    }
    LayerRows<float> all = worker_.gather(l, worker_.arrays());
    if (model.rank() == 0) {
      if (!needs_gradient() && data_.rank() == 0) {
        next_[l] = grow_random(all.pattern, all.values[0].data(), count_for(all.pattern, part_done),
                               spec_.seed, grow_stream(l));
      }
      NextPattern next = std::exchange(next_[l], {});
      tell(all.pattern, next);
      for (std::vector<float>& values : all.values) values = next.move(values.data());
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

std::unique_ptr<Rewirer> make_shared_rewirer(const TrainSpec& spec, Worker& worker,
                                             Communicator& data) {
  return std::make_unique<SharedRewirer>(spec, worker, data);
}

}  // namespace spdnn::train
