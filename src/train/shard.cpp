// Cutting a rank's rows out of a network: which inputs they read, and everything renumbered.
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

/// What the columns of a layer's weights stand for: `columns` of them for each item of its inputs,
/// an item being `features` features, one or a plane.
struct Items {
  std::int64_t count, columns, features;
};

Items items_of(const TrainLayer& layer) {
  if (const auto* conv = std::get_if<ConvForm>(&layer.form)) {
    return {conv->window.channels, conv->window.taps(), conv->window.in_pixels()};
  }
  return {layer.inputs(), 1, 1};
}

/// Items that the rows read, ascending.
std::vector<std::uint32_t> items_read(const Pattern& rows, const Items& items) {
  if (rows.is_dense()) return all_below(rows.rows() == 0 ? 0 : items.count);
  std::vector<bool> read(static_cast<std::size_t>(items.count));
  for (const std::uint32_t col : rows.col_indices()) read[col / items.columns] = true;
  std::vector<std::uint32_t> list;
  for (std::size_t i = 0; i < read.size(); ++i) {
    if (read[i]) list.push_back(static_cast<std::uint32_t>(i));
  }
  return list;
}

/// Rows that read nothing but what `is_own` says, then the others, each in order.
struct Order {
  std::vector<std::size_t> rows;
  std::int64_t interior = 0;
};

Order order_rows(const Pattern& rows, const Items& items, const std::vector<bool>& is_own) {
  std::vector<bool> inside(static_cast<std::size_t>(rows.rows()), true);
  for (std::int64_t row = 0; row < rows.rows(); ++row) {
    if (rows.is_dense()) {
      inside[row] = std::find(is_own.begin(), is_own.end(), false) == is_own.end();
      continue;
    }
    for (std::int64_t k = rows.row_offsets()[row]; k < rows.row_offsets()[row + 1]; ++k) {
      if (!is_own[rows.col_indices()[k] / items.columns]) inside[row] = false;
    }
  }
  Order order;
  order.rows.resize(inside.size());
  std::iota(order.rows.begin(), order.rows.end(), std::size_t{0});
  const auto middle = std::stable_partition(order.rows.begin(), order.rows.end(),
                                            [&](std::size_t row) { return inside[row]; });
  order.interior = std::distance(order.rows.begin(), middle);
  return order;
}

/// The rows in another order, their columns numbered among the items read.
Pattern renumber(const Pattern& rows, const Items& items, const std::vector<std::uint32_t>& read,
                 const std::vector<std::size_t>& order) {
  const std::int64_t cols = std::ssize(read) * items.columns;
  if (rows.is_dense()) return Pattern::dense(rows.rows(), cols);
  std::vector<std::uint32_t> place(static_cast<std::size_t>(items.count));
  for (std::size_t i = 0; i < read.size(); ++i) place[read[i]] = static_cast<std::uint32_t>(i);
  const auto per_item = static_cast<std::uint32_t>(items.columns);
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> indices;
  indices.reserve(rows.col_indices().size());
  for (const std::size_t row : order) {
    for (std::int64_t k = rows.row_offsets()[row]; k < rows.row_offsets()[row + 1]; ++k) {
      const std::uint32_t col = rows.col_indices()[k];
      indices.push_back(place[col / per_item] * per_item + col % per_item);
    }
    offsets.push_back(std::ssize(indices));
  }
  return {rows.rows(), cols, std::move(offsets), std::move(indices)};
}

/// The features between two layers as the ranks share them.
struct Between {
  std::vector<std::uint32_t> owners;  ///< by feature
  std::vector<std::uint32_t> own;     ///< this rank's, in its order
};

Between features_after(const TrainLayer& layer, const LayerPartition& partition,
                       const std::vector<std::uint32_t>& units) {
  const std::int64_t each = layer.features_per_unit();
  Between between;
  for (const std::uint32_t owner : owners_of(partition)) {
    between.owners.insert(between.owners.end(), static_cast<std::size_t>(each), owner);
  }
  between.own = features_of(units, each);
  return between;
}

/// Adds the slice of one layer with weights to the shard. `before` is null for the first layer.
void add_layer(Communicator& comm, const TrainLayer& layer, std::span<const std::uint32_t> units,
               const Pattern& rows, const Between* before, Shard& shard) {
  const Items items = items_of(layer);
  std::vector<std::uint32_t> read;
  std::vector<bool> is_own(static_cast<std::size_t>(items.count), true);
  // The first layer's inputs are at hand as they are.
  if (before == nullptr) {
    read = all_below(items.count);
  } else {
    read = items_read(rows, items);
    for (std::size_t i = 0; i < is_own.size(); ++i) {
      is_own[i] = static_cast<int>(before->owners[i * items.features]) == comm.rank();
    }
  }
  const Order order = order_rows(rows, items, is_own);
  TrainLayer slice = {renumber(rows, items, read, order.rows), layer.activation, layer.form};
  if (auto* conv = std::get_if<ConvForm>(&slice.form)) conv->window.channels = std::ssize(read);
  shard.layers.push_back(std::move(slice));
  shard.interior.push_back(order.interior);
  auto& own = shard.units.emplace_back();
  for (const std::size_t row : order.rows) own.push_back(units[row]);
  shard.halos.push_back(before == nullptr ? local_halo(layer.inputs())
                                          : make_halo(comm, before->owners, before->own,
                                                      features_of(read, items.features)));
  auto& columns = shard.columns.emplace_back();
  if (std::ssize(read) < items.count) columns = features_of(read, items.columns);
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

std::vector<std::uint32_t> features_of(const std::vector<std::uint32_t>& units,
                                       std::int64_t features_per_unit) {
  std::vector<std::uint32_t> features;
  features.reserve(units.size() * static_cast<std::size_t>(features_per_unit));
  for (const std::uint32_t unit : units) {
    for (std::int64_t i = 0; i < features_per_unit; ++i) {
      features.push_back(static_cast<std::uint32_t>(unit * features_per_unit + i));
    }
  }
  return features;
}

std::span<const std::uint32_t> part_of(const LayerPartition& partition, int part) {
  return std::span(partition.rows)
      .subspan(static_cast<std::size_t>(partition.offsets[part]),
               static_cast<std::size_t>(partition.offsets[part + 1] - partition.offsets[part]));
}

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
  std::optional<Between> before;
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
      add_layer(comm, layers[l], part_of(*split, comm.rank()), rows[l], before ? &*before : nullptr,
                shard);
    }
    before = features_after(layers[l], *split, shard.units.back());
  }
  shard.halos.push_back(
      make_halo(comm, before->owners, before->own, all_below(layers.back().outputs())));
  return shard;
}

Halo halo_of_all(Communicator& comm, const std::vector<TrainLayer>& layers,
                 const std::vector<LayerPartition>& partition, const Shard& shard,
                 std::size_t layer) {
  std::size_t split = layer - 1;
  while (std::holds_alternative<PoolForm>(layers[split].form)) --split;
  const Between before =
      features_after(layers[layer - 1], partition[split], shard.units[layer - 1]);
  return make_halo(comm, before.owners, before.own, all_below(std::ssize(before.owners)));
}

}  // namespace spdnn::train
