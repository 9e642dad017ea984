// Connections changed in the host's memory: rows come to one rank, which decides for all of them.
#include <algorithm>
#include <optional>
#include <utility>

#include "host_view.hpp"
#include "rewire.hpp"

namespace spdnn::train {
namespace {

/// Places whose gradients are there at a time, where a rank has all rows.
constexpr std::int64_t kPlaces = std::int64_t{1} << 18U;

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
      : Rewirer(spec, worker, data), next_(worker.layers().size()) {}
  void observe(std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient,
               double part_done) override;
  std::int64_t apply(double part_done) override;

 private:
  void weigh_by_rows(std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient,
                     double part_done);
  void weigh_at_once(std::size_t layer, const AnyBatchPass<float>::GradientOn& gradient,
                     double part_done);
  [[nodiscard]] std::vector<float> gradient_of_all(std::size_t layer,
                                                   const AnyBatchPass<float>::GradientOn& gradient);
  void sum(float* values, std::int64_t places);
  void count_bytes(const Buffer& gradient, std::int64_t beside);

  /// On the first rank: what becomes of each layer.
  std::vector<NextPattern> next_;
};

/// Gradients of so many places, over the ranks with other images.
void HostRewirer::sum(float* values, std::int64_t places) {
  if (data_.size() == 1) return;
  Network<float>& network = worker_.network();
  data_.all_reduce(values, values, places, DType::f32, Reduction::sum,
                   shares_memory(network.device()) ? nullptr : &network.stream());
}

void HostRewirer::count_bytes(const Buffer& gradient, std::int64_t beside) {
  const auto bytes = static_cast<std::int64_t>(gradient.bytes());
  const bool here = shares_memory(worker_.network().device());
  if (!here) device_bytes_ = std::max(device_bytes_, bytes);
  host_bytes_ = std::max(host_bytes_, beside + (here ? bytes : 0));
}

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
  count_bytes(gradient, 0);
  auto* values = gradient.as<float>();
  const std::optional<Halo> halo = halo_of_inputs(worker_, layer);
  gradient_on(own, 0, halo ? &*halo : nullptr, values, values + places);
  sum(values, places);
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
  if (worker_.model().size() == 1) {
    weigh_by_rows(layer, gradient_on, part_done);
  } else {
    weigh_at_once(layer, gradient_on, part_done);
  }
}

/// Of a rank that has all rows: some rows' gradients at a time.
void HostRewirer::weigh_by_rows(std::size_t layer,
                                const AnyBatchPass<float>::GradientOn& gradient_on,
                                double part_done) {
  Network<float>& network = worker_.network();
  Stream& stream = network.stream();
  Device& device = network.device();
  const Pattern& pattern = network.pattern(layer);
  const std::int64_t cols = pattern.cols();
  const std::int64_t at_once = std::clamp<std::int64_t>(kPlaces / cols, 1, pattern.rows());
  const Buffer gradient =
      device.allocate(static_cast<std::size_t>(at_once * (cols + 1)) * sizeof(float));
  auto* const values = gradient.as<float>();
  std::optional<GrowLargest> choice;
  if (data_.rank() == 0) {
    const HostView<float> now(network.parameters() + network.values_of(layer).begin, pattern.nnz(),
                              device, stream);
    choice.emplace(pattern, now.data(), count_for(pattern, part_done));
  }
  for (std::int64_t begin = 0; begin < pattern.rows(); begin += at_once) {
    const TrainLayer part = {Pattern::dense(std::min(at_once, pattern.rows() - begin), cols),
                             network.layers()[layer].activation, network.layers()[layer].form};
    const std::int64_t places = part.pattern.nnz();
    gradient_on(part, begin, nullptr, values, values + places);
    sum(values, places);
    if (!choice) continue;
    const HostView<float> found(values, places, device, stream);
    choice->weigh({found.data(), static_cast<std::size_t>(places)});
  }
  count_bytes(gradient, choice ? choice->bytes() : 0);
  if (choice) next_[layer] = choice->finish();
}

/// Of ranks that share rows: all of the layer on the first of them.
void HostRewirer::weigh_at_once(std::size_t layer,
                                const AnyBatchPass<float>::GradientOn& gradient_on,
                                double part_done) {
  const std::vector<float> gradient = gradient_of_all(layer, gradient_on);
  const LayerRows<float> rows = worker_.gather(layer, 1);
  if (worker_.model().rank() != 0 || data_.rank() != 0) return;
  GrowLargest choice(rows.pattern, rows.values[0].data(), count_for(rows.pattern, part_done));
  choice.weigh(gradient);
  host_bytes_ =
      std::max(host_bytes_,
               std::ssize(gradient) * static_cast<std::int64_t>(sizeof(float)) + choice.bytes());
  next_[layer] = choice.finish();
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
    LayerRows<float> all = worker_.gather(l, worker_.arrays());
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
