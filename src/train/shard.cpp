// Cutting a rank's rows out of a network in training.
#include "shard.hpp"

#include <algorithm>
#include <numeric>
#include <optional>

#include "spdnn/plan.hpp"

namespace spdnn::train {
namespace {

std::vector<std::uint32_t> all_below(std::int64_t count) {
  std::vector<std::uint32_t> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0U);
  return all;
}

InputItems items_of(const TrainLayer& layer) {
  if (const auto* conv = std::get_if<ConvForm>(&layer.form)) {
    return {conv->window.channels, conv->window.taps(), conv->window.in_pixels()};
  }
  return {layer.inputs(), 1, 1};
}

RowPattern view_of(const Pattern& rows) {
  return rows.is_dense()
             ? RowPattern{rows.rows()}
             : RowPattern{rows.rows(), rows.row_offsets().data(), rows.col_indices().data()};
}

/// Adds the slice of one layer with weights to the shard, but for its halo: what it reads of the
/// layer before, where there is one, is added to `requests`.
void add_layer(int rank, const TrainLayer& layer, std::span<const std::uint32_t> units,
               const Pattern& rows, const FeatureOwners* before, Shard& shard,
               std::vector<HaloRequest>& requests) {
  const InputItems items = items_of(layer);
  RowSlice cut = slice_rows(rank, view_of(rows), items, before);
  Pattern pattern = rows.is_dense() ? Pattern::dense(rows.rows(), cut.cols)
                                    : Pattern(rows.rows(), cut.cols, std::move(cut.offsets),
                                              std::move(cut.columns));
  TrainLayer slice = {std::move(pattern), layer.activation, layer.form};
  if (auto* conv = std::get_if<ConvForm>(&slice.form)) conv->window.channels = std::ssize(cut.read);
  shard.layers.push_back(std::move(slice));
  shard.interior.push_back(cut.interior);
  auto& own = shard.units.emplace_back();
  for (const std::size_t row : cut.order) own.push_back(units[row]);
  shard.halos.push_back(local_halo(layer.inputs()));
  if (before != nullptr) requests.push_back({*before, features_of(cut.read, items.features)});
  auto& columns = shard.columns.emplace_back();
  if (std::ssize(cut.read) < items.count) columns = features_of(cut.read, items.columns);
}

void add_pooling(const TrainLayer& layer, const std::vector<std::uint32_t>& channels,
                 Shard& shard) {
  TrainLayer slice = layer;
  auto& pool = std::get<PoolForm>(slice.form);
  pool.window.channels = std::ssize(channels);
  shard.layers.push_back(std::move(slice));
  shard.interior.push_back(std::ssize(channels));
  shard.halos.push_back(local_halo(pool.window.inputs()));
  shard.units.push_back(channels);
  shard.columns.emplace_back();
}

}  // namespace

Shard whole_shard(std::vector<TrainLayer> layers) {
  Shard shard;
  for (const TrainLayer& layer : layers) {
    shard.units.push_back(all_below(layer.units()));
    shard.interior.push_back(layer.units());
    shard.columns.emplace_back();
    shard.halos.push_back(local_halo(layer.inputs()));
  }
  shard.halos.push_back(local_halo(layers.back().outputs()));
  shard.layers = std::move(layers);
  return shard;
}

std::vector<LayerPartition> split_by_counts(const std::vector<TrainLayer>& layers,
                                            const std::vector<std::vector<std::int64_t>>& counts) {
  std::vector<LayerPartition> partition;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    LayerPartition& part = partition.emplace_back();
    part.rows = all_below(layers[l].units());
    part.offsets = {0};
    for (const std::int64_t count : counts[l]) part.offsets.push_back(part.offsets.back() + count);
  }
  return partition;
}

std::vector<LayerPartition> split_units(const std::vector<TrainLayer>& layers,
                                        const std::vector<double>& shares) {
  std::vector<LayerPartition> partition;
  for (const TrainLayer& layer : layers) {
    LayerPartition& part = partition.emplace_back();
    part.rows = all_below(layer.units());
    part.offsets = {0};
    for (const Range& range : split_in_proportion(layer.units(), shares)) {
      part.offsets.push_back(range.end);
    }
  }
  return partition;
}

Shard make_shard(Communicator& comm, const std::vector<TrainLayer>& layers,
                 const std::vector<LayerPartition>& partition, const std::vector<Pattern>& rows) {
  if (comm.size() == 1) {
    std::vector<TrainLayer> all = layers;
    for (std::size_t l = 0; l < all.size(); ++l) all[l].pattern = rows[l];
    return whole_shard(std::move(all));
  }
  Shard shard;
  std::vector<HaloRequest> requests;
  std::vector<std::size_t> asking;  // the halo that a request is for
  std::optional<FeatureOwners> before;
  const LayerPartition* split = nullptr;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    if (std::holds_alternative<PoolForm>(layers[l].form)) {
      if (split == nullptr) {
        throw InputError(
            "a first layer that pools can't be divided between ranks; put a "
            "convolution before it, or use strategy 'data'");
      }
      const std::vector<std::uint32_t> channels = shard.units.back();
      add_pooling(layers[l], channels, shard);
    } else {
      split = &partition[l];
      if (before) asking.push_back(l);
      add_layer(comm.rank(), layers[l], part_of(*split, comm.rank()), rows[l],
                before ? &*before : nullptr, shard, requests);
    }
    before = feature_owners(*split, layers[l].features_per_unit(), shard.units.back());
  }
  requests.push_back({*std::move(before), all_below(layers.back().outputs())});
  asking.push_back(layers.size());
  shard.halos.emplace_back();
  std::vector<Halo> found = make_halos(comm, requests);
  for (std::size_t i = 0; i < found.size(); ++i) shard.halos[asking[i]] = std::move(found[i]);
  return shard;
}

Halo halo_of_all(Communicator& comm, const std::vector<TrainLayer>& layers,
                 const std::vector<LayerPartition>& partition, const Shard& shard,
                 std::size_t layer) {
  std::size_t split = layer - 1;
  while (std::holds_alternative<PoolForm>(layers[split].form)) --split;
  const FeatureOwners before = feature_owners(
      partition[split], layers[layer - 1].features_per_unit(), shard.units[layer - 1]);
  return make_halo(comm, before.owners, before.own, all_below(std::ssize(before.owners)));
}

}  // namespace spdnn::train
