// Rows into the arrays of a rank's network and out of them.
#include "worker.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "host_view.hpp"

namespace spdnn::train {
namespace {

/// Where each row's entries begin, and where the last one's end.
std::vector<std::int64_t> row_offsets(const Pattern& pattern) {
  if (!pattern.is_dense()) return pattern.row_offsets();
  std::vector<std::int64_t> offsets;
  for (std::int64_t row = 0; row <= pattern.rows(); ++row) offsets.push_back(row * pattern.cols());
  return offsets;
}

/// Copies rows between two arrays of entries, `order[i]` of `from` to row i of `to`. `offsets` say
/// where the rows of `from` are.
void reorder(const float* from, const std::vector<std::int64_t>& offsets,
             const std::vector<std::size_t>& order, float* to) {
  for (const std::size_t row : order)
    to = std::copy(from + offsets[row], from + offsets[row + 1], to);
}

std::vector<std::size_t> inverse(const std::vector<std::size_t>& order) {
  std::vector<std::size_t> inverse(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) inverse[order[i]] = i;
  return inverse;
}

/// Where each unit is in `units`, in order of their numbers.
std::vector<std::size_t> by_number(const std::vector<std::uint32_t>& units) {
  std::vector<std::size_t> order(units.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return units[a] < units[b]; });
  return order;
}

/// All `count` rows of a layer of which `some` holds the rows `units`, ascending: the others are
/// empty. A dense layer of which some are missing has no columns here.
LayerRows<float> spread_rows(LayerRows<float> some, const std::vector<std::uint32_t>& units,
                             std::int64_t count) {
  LayerRows<float> all;
  all.values = std::move(some.values);
  for (const std::vector<float>& from : some.biases) {
    std::vector<float>& biases = all.biases.emplace_back(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < units.size(); ++i) biases[units[i]] = from[i];
  }
  const Pattern& pattern = some.pattern;
  if (pattern.is_dense()) {
    all.pattern = Pattern::dense(count, pattern.cols());
    return all;
  }
  std::vector<std::int64_t> offsets(static_cast<std::size_t>(count + 1));
  for (std::size_t i = 0; i < units.size(); ++i) {
    offsets[units[i] + 1] = pattern.fan_in(static_cast<std::int64_t>(i));
  }
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  all.pattern = Pattern(count, pattern.cols(), std::move(offsets), pattern.col_indices());
  return all;
}

}  // namespace

Worker::Worker(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
               const TrainKernels<float>& kernels, Communicator& model, Device& device,
               Stream& stream, std::int64_t steps_per_epoch, std::vector<LayerSplit> splits)
    : spec_(spec),
      layers_(layers),
      kernels_(kernels),
      model_(model),
      device_(device),
      stream_(stream),
      steps_per_epoch_(steps_per_epoch),
      splits_(std::move(splits)) {}

std::vector<std::size_t> Worker::places(std::size_t layer) const {
  return inverse(by_number(shard_->units[layer]));
}

std::vector<std::size_t> Worker::sources(std::size_t layer) const {
  if (!by_inputs(layer)) return places(layer);
  const std::vector<std::uint32_t>& rows = shard_->sums[layer]->rows;
  return {rows.begin(), rows.end()};
}

void Worker::load(std::vector<LayerPartition> partition, std::vector<LayerRows<float>> rows) {
  std::optional<OptimizerProgress> progress;
  if (optimizer_) progress = optimizer_->progress();
  crossed_ = crossed();
  pieces_.reset();
  pass_.reset();
  optimizer_.reset();
  network_.reset();
  partition_ = std::move(partition);
  std::vector<Pattern> patterns;
  std::vector<std::vector<std::int64_t>> offsets;
  for (std::size_t l = 0; l < rows.size(); ++l) {
    if (by_inputs(l)) {
      rows[l] =
          rows_to_columns(model_, partition_[l], column_owners(layers_, partition_, l), rows[l]);
    }
    offsets.push_back(row_offsets(rows[l].pattern));
    patterns.push_back(std::move(rows[l].pattern));
  }
  shard_ = make_shard(model_, layers_, partition_, std::move(patterns), splits_);
  network_.emplace(std::move(shard_->layers), kernels_, device_, stream_);
  optimizer_.emplace(spec_, *network_, steps_per_epoch_, &model_);
  if (progress) optimizer_->set_progress(*progress);
  std::vector<float*> arrays = {network_->parameters()};
  for (float* state : optimizer_->state()) arrays.push_back(state);
  for (std::size_t l = 0; l < rows.size(); ++l) {
    if (!has_weights(l)) continue;
    if (rows[l].values.size() != 1 && rows[l].values.size() != arrays.size()) {
      throw InputError(fmt::format("{} arrays of optimiser state, and this optimiser has {}",
                                   rows[l].values.size() - 1, arrays.size() - 1));
    }
    const std::vector<std::size_t> order = sources(l);
    for (std::size_t a = 0; a < rows[l].values.size(); ++a) {
      HostDraft<float> values(arrays[a] + network_->values_of(l).begin,
                              network_->values_of(l).size(), device_, stream_);
      reorder(rows[l].values[a].data(), offsets[l], order, values.data());
      values.store();
      HostDraft<float> biases(arrays[a] + network_->biases_of(l).begin,
                              network_->biases_of(l).size(), device_, stream_);
      float* bias = biases.data();
      for (const std::size_t row : order) *bias++ = rows[l].biases[a][row];
      biases.store();
    }
    rows[l] = {};
  }
  make_pass();
}

void Worker::make_pass() {
  // Ranks that share rows hide their exchanges behind pieces of their own.
  const std::int64_t at_once =
      model_.size() > 1 ? most_images_ : images_at_once(spec_, layers_, device_.info());
  pass_ = train::make_pass(spec_.precision, *network_, *shard_, model_,
                           std::min(most_images_, at_once));
  pass_->keep_work(spec_.cuda_graphs);
  pass_->scale_losses(optimizer_->loss_scale());
  pieces_.emplace(*pass_, at_once);
}

std::vector<LayerRows<float>> Worker::own_rows(const std::vector<LayerPartition>& partition,
                                               std::vector<LayerRows<float>> all) const {
  for (std::size_t l = 0; l < all.size() && model_.size() > 1; ++l) {
    if (has_weights(l)) all[l] = select_rows(all[l], part_of(partition[l], model_.rank()));
  }
  return all;
}

void Worker::load_whole(std::vector<LayerPartition> partition, std::vector<LayerRows<float>> all) {
  std::vector<LayerRows<float>> own = own_rows(partition, std::move(all));
  load(std::move(partition), std::move(own));
}

LayerRows<float> Worker::rows(std::size_t layer, std::size_t arrays) const {
  if (!has_weights(layer)) return {};
  LayerRows<float> held = held_rows(layer, arrays);
  if (!by_inputs(layer)) return held;
  std::vector<std::uint32_t> units = shard_->sums[layer]->rows;
  std::sort(units.begin(), units.end());
  return columns_to_rows(model_, partition_[layer], column_owners(layers_, partition_, layer),
                         spread_rows(std::move(held), units, layers_[layer].units()));
}

/// The parameters and the optimiser's state.
std::vector<const float*> Worker::held_arrays(std::size_t arrays) const {
  std::vector<const float*> held = {network_->parameters()};
  if (arrays > 1) {
    for (const float* state : optimizer_->state()) held.push_back(state);
  }
  held.resize(arrays);
  return held;
}

LayerRows<float> Worker::held_rows(std::size_t layer, std::size_t arrays) const {
  LayerRows<float> rows;
  const Pattern& slice = network_->pattern(layer);
  const std::vector<std::uint32_t>& columns = shard_->columns[layer];
  const std::vector<std::size_t> order =
      by_number(by_inputs(layer) ? shard_->sums[layer]->rows : shard_->units[layer]);
  std::vector<std::uint32_t> local(order.begin(), order.end());
  const std::int64_t cols =
      by_inputs(layer) && slice.is_dense() ? slice.cols() : layers_[layer].pattern.cols();
  if (slice.is_dense()) {
    rows.pattern = Pattern::dense(slice.rows(), cols);
  } else {
    const Pattern some = select_rows(slice, local);
    std::vector<std::uint32_t> indices = some.col_indices();
    if (!columns.empty()) {
      for (std::uint32_t& index : indices) index = columns[index];
    }
    rows.pattern = Pattern(some.rows(), cols, some.row_offsets(), std::move(indices));
  }
  const std::vector<std::int64_t> offsets = row_offsets(slice);
  for (const float* array : held_arrays(arrays)) {
    const HostView<float> from(array + network_->values_of(layer).begin, slice.nnz(), device_,
                               stream_);
    auto& values = rows.values.emplace_back(static_cast<std::size_t>(slice.nnz()));
    reorder(from.data(), offsets, order, values.data());
    const HostView<float> biases(array + network_->biases_of(layer).begin, slice.rows(), device_,
                                 stream_);
    auto& bias = rows.biases.emplace_back();
    for (const std::size_t row : order) bias.push_back(biases.data()[row]);
  }
  return rows;
}

LayerRows<float> Worker::gather(std::size_t layer, std::size_t arrays) const {
  if (!has_weights(layer)) return {};
  return move_rows(model_, partition_[layer], all_on(0, model_.size(), layers_[layer].units()),
                   rows(layer, arrays));
}

void Worker::show(std::size_t layer, std::size_t arrays,
                  const std::function<void(const RowsView<float>&)>& see) const {
  if (model_.size() > 1 || !shares_memory(device_)) {
    const LayerRows<float> all = gather(layer, arrays);
    if (model_.rank() == 0) see(view_of(all));
    return;
  }
  // A rank alone has all rows, in their order.
  RowsView<float> all = {&network_->pattern(layer), {}, {}};
  const auto part_of_array = [](const float* array, Range part) {
    return std::span(array + part.begin, static_cast<std::size_t>(part.size()));
  };
  for (const float* array : held_arrays(arrays)) {
    all.values.push_back(part_of_array(array, network_->values_of(layer)));
    all.biases.push_back(part_of_array(array, network_->biases_of(layer)));
  }
  see(all);
}

void Worker::repartition(std::vector<LayerPartition> next) {
  std::vector<LayerRows<float>> moved;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    moved.push_back(has_weights(l) ? move_rows(model_, partition_[l], next[l], rows(l, arrays()))
                                   : LayerRows<float>{});
  }
  load(std::move(next), std::move(moved));
}

Crossed Worker::crossed() const {
  Crossed all = crossed_;
  all.forward.resize(layers_.size() + 1);
  all.backward.resize(layers_.size() + 1);
  if (!pass_) return all;
  for (std::size_t l = 0; l <= layers_.size(); ++l) {
    all.forward[l] += pass_->forward_bytes(l);
    all.backward[l] += pass_->backward_bytes(l);
  }
  all.images_forward += pass_->images_forward();
  all.images_backward += pass_->images_backward();
  return all;
}

void Worker::keep_parameters_alone() {
  crossed_ = crossed();
  pieces_.reset();
  pass_.reset();
  optimizer_.reset();
  network_->drop_gradient();
}

void Worker::make_room(std::int64_t most_images) {
  crossed_ = crossed();
  most_images_ = std::max<std::int64_t>(most_images, 1);
  if (network_) make_pass();
}

}  // namespace spdnn::train
