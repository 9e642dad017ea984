// Cutting a rank's rows out of a network in training.
#include "shard.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "rows.hpp"
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

/// Some rows of a matrix.
Pattern rows_of(const CsrView& matrix, std::span<const std::uint32_t> rows) {
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> indices;
  for (const std::uint32_t row : rows) {
    for (std::int64_t k = matrix.row_begin(row); k < matrix.row_begin(row + 1); ++k) {
      indices.push_back(static_cast<std::uint32_t>(matrix.col(k)));
    }
    std::sort(indices.begin() + offsets.back(), indices.end());
    offsets.push_back(std::ssize(indices));
  }
  return {std::ssize(rows), matrix.cols, std::move(offsets), std::move(indices)};
}

/// What the others' rows of a layer read of this rank's of the layer before.
HaloAsked asked_of(int rank, const CsrView& matrix, const LayerPartition& before,
                   const LayerPartition& layer) {
  const std::vector<std::uint32_t> owners = owners_of(before);
  const auto parts = static_cast<int>(layer.offsets.size()) - 1;
  HaloAsked asked;
  std::vector<int> last(owners.size(), -1);
  for (int part = 0; part < parts; ++part) {
    auto& list = asked.by_rank.emplace_back();
    for (const std::uint32_t row : part_of(layer, part)) {
      for (std::int64_t k = matrix.row_begin(row); k < matrix.row_begin(row + 1); ++k) {
        const auto col = static_cast<std::uint32_t>(matrix.col(k));
        const auto owner = static_cast<int>(owners[col]);
        if (owner == part) continue;
        asked.crosses = true;
        if (owner == rank && std::exchange(last[col], part) != part) list.push_back(col);
      }
    }
    std::sort(list.begin(), list.end());
  }
  return asked;
}

/// Each rank's words of the loss go to all ranks, which have them in order of rank.
Halo halo_of_loss(int rank, int ranks) {
  Halo halo = local_halo(LossPart::words);
  halo.own_from = all_below(LossPart::words);
  halo.inputs = ranks * LossPart::words;
  halo.in_place = ranks == 1;
  halo.crosses = ranks > 1;
  for (int peer = 0; peer < ranks; ++peer) {
    std::vector<std::uint32_t> words = all_below(LossPart::words);
    if (peer != rank) halo.sends.push_back({peer, words});
    for (std::uint32_t& word : words) word += static_cast<std::uint32_t>(peer * LossPart::words);
    if (peer != rank) halo.receives.push_back({peer, words});
    if (peer == rank) halo.own_to = std::move(words);
  }
  return halo;
}

/// One layer after another, and what is to be asked of the other ranks for all of them. The layers
/// and the partition must outlive it.
class ShardMaker {
 public:
  ShardMaker(int rank, const std::vector<TrainLayer>& layers,
             const std::vector<LayerPartition>& partition, std::vector<LayerSplit> splits)
      : rank_(rank), layers_(layers), partition_(partition), splits_(std::move(splits)) {}

  void add(std::size_t layer, const Pattern& rows) {
    shard_.sums.emplace_back();
    if (std::holds_alternative<PoolForm>(layers_[layer].form)) {
      add_pooling(layer);
    } else if (by_inputs(layer)) {
      add_columns(layer, rows);
    } else {
      add_rows(layer, rows);
    }
    const std::size_t split = split_before(layers_, layer + 1);
    before_ =
        feature_owners(partition_[split], layers_[layer].features_per_unit(), shard_.units.back());
  }

  /// `find` returns the halos of requests.
  template <class Find>
  Shard finish(const Find& find) {
    std::vector<Halo> found = find(requests_);
    for (std::size_t i = 0; i < found.size(); ++i) {
      const auto& [layer, behind] = asking_[i];
      (behind ? shard_.sums[layer]->halo : shard_.halos[layer]) = std::move(found[i]);
    }
    shard_.halos.push_back(
        halo_of_loss(rank_, static_cast<int>(partition_.back().offsets.size()) - 1));
    shard_.outputs = before_->own;
    shard_.all_outputs = layers_.back().outputs();
    return std::move(shard_);
  }

 private:
  /// The halo that a request is for: the one before a layer, or that of its sums.
  struct Asking {
    std::size_t layer;
    bool behind;
  };

  [[nodiscard]] bool by_inputs(std::size_t layer) const {
    return !splits_.empty() && splits_[layer] == LayerSplit::inputs;
  }

  /// Whether the units of a layer must ascend: a layer that is split by inputs reads them.
  [[nodiscard]] bool is_read_in_order(std::size_t layer) const {
    std::size_t next = layer + 1;
    while (next < layers_.size() && std::holds_alternative<PoolForm>(layers_[next].form)) ++next;
    return next < layers_.size() && by_inputs(next);
  }

  void add_rows(std::size_t layer, const Pattern& rows) {
    const TrainLayer& whole = layers_[layer];
    const InputItems items = items_of(whole);
    RowSlice cut = slice_rows(rank_, view_of(rows), items, before_ ? &*before_ : nullptr,
                              is_read_in_order(layer));
    Pattern pattern = rows.is_dense() ? Pattern::dense(rows.rows(), cut.cols)
                                      : Pattern(rows.rows(), cut.cols, std::move(cut.offsets),
                                                std::move(cut.columns));
    add_slice(whole, std::move(pattern), std::ssize(cut.read), whole.activation);
    shard_.interior.push_back(cut.interior);
    const std::span<const std::uint32_t> units = part_of(partition_[layer], rank_);
    auto& own = shard_.units.emplace_back();
    for (const std::size_t row : cut.order) own.push_back(units[row]);
    shard_.halos.push_back(local_halo(whole.inputs()));
    if (before_) {
      requests_.push_back({*before_, features_of(cut.read, items.features)});
      asking_.push_back({layer, false});
    }
    auto& columns = shard_.columns.emplace_back();
    if (std::ssize(cut.read) < items.count) columns = features_of(cut.read, items.columns);
  }

  /// Of a layer split by inputs: the rows that have any of this rank's columns, and its own.
  void add_columns(std::size_t layer, const Pattern& rows) {
    const TrainLayer& whole = layers_[layer];
    const InputItems items = items_of(whole);
    std::vector<std::uint32_t> columns;
    const std::vector<std::uint32_t> owners = column_owners(layers_, partition_, layer);
    for (std::size_t column = 0; column < owners.size(); ++column) {
      if (static_cast<int>(owners[column]) == rank_) {
        columns.push_back(static_cast<std::uint32_t>(column));
      }
    }
    const std::span<const std::uint32_t> own = part_of(partition_[layer], rank_);
    PartialSums sums;
    sums.activation = whole.activation;
    sums.rows.assign(own.begin(), own.end());
    std::vector<bool> is_own(static_cast<std::size_t>(rows.rows()));
    for (const std::uint32_t unit : own) is_own[unit] = true;
    for (std::int64_t unit = 0; unit < rows.rows(); ++unit) {
      if (is_own[unit] || rows.fan_in(unit) == 0) continue;
      sums.rows.push_back(static_cast<std::uint32_t>(unit));
    }
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    add_slice(whole, cut_columns(rows, sums.rows, columns, std::ssize(owners)),
              std::ssize(columns) / items.columns, {-kInfinity, kInfinity});
    shard_.interior.push_back(std::ssize(own));
    shard_.units.emplace_back(own.begin(), own.end());
    shard_.halos.push_back(local_halo(shard_.layers.back().inputs()));
    shard_.columns.push_back(std::move(columns));
    const std::int64_t each = whole.features_per_unit();
    requests_.push_back({feature_owners(partition_[layer], each, shard_.units.back()),
                         features_of(sums.rows, each)});
    asking_.push_back({layer, true});
    shard_.sums.back() = std::move(sums);
  }

  /// The rows `units`, columns numbered among `columns` of `cols`.
  [[nodiscard]] static Pattern cut_columns(const Pattern& rows,
                                           const std::vector<std::uint32_t>& units,
                                           const std::vector<std::uint32_t>& columns,
                                           std::int64_t cols) {
    if (rows.is_dense()) return Pattern::dense(std::ssize(units), std::ssize(columns));
    std::vector<std::uint32_t> place(static_cast<std::size_t>(cols));
    for (std::size_t i = 0; i < columns.size(); ++i) {
      place[columns[i]] = static_cast<std::uint32_t>(i);
    }
    const Pattern some = select_rows(rows, units);
    std::vector<std::uint32_t> indices = some.col_indices();
    for (std::uint32_t& index : indices) index = place[index];
    return {some.rows(), std::ssize(columns), some.row_offsets(), std::move(indices)};
  }

  /// A slice of a layer with weights, which reads so many of the items of its inputs.
  void add_slice(const TrainLayer& whole, Pattern pattern, std::int64_t items,
                 const Epilogue& activation) {
    TrainLayer slice = {std::move(pattern), activation, whole.form};
    if (auto* conv = std::get_if<ConvForm>(&slice.form)) conv->window.channels = items;
    shard_.layers.push_back(std::move(slice));
  }

  void add_pooling(std::size_t layer) {
    if (layer == 0) {
      throw InputError(
          "a first layer that pools can't be divided between ranks; put a "
          "convolution before it, or use strategy 'data'");
    }
    const std::vector<std::uint32_t> channels = shard_.units.back();
    TrainLayer slice = layers_[layer];
    auto& pool = std::get<PoolForm>(slice.form);
    pool.window.channels = std::ssize(channels);
    shard_.halos.push_back(local_halo(pool.window.inputs()));
    shard_.layers.push_back(std::move(slice));
    shard_.interior.push_back(std::ssize(channels));
    shard_.units.push_back(channels);
    shard_.columns.emplace_back();
  }

  int rank_;
  const std::vector<TrainLayer>& layers_;
  const std::vector<LayerPartition>& partition_;
  std::vector<LayerSplit> splits_;
  Shard shard_;
  std::optional<FeatureOwners> before_;
  std::vector<HaloRequest> requests_;
  std::vector<Asking> asking_;
};

}  // namespace

std::size_t split_before(const std::vector<TrainLayer>& layers, std::size_t layer) {
  std::size_t split = layer - 1;
  while (std::holds_alternative<PoolForm>(layers[split].form)) --split;
  return split;
}

Shard whole_shard(std::vector<TrainLayer> layers) {
  Shard shard;
  for (const TrainLayer& layer : layers) {
    shard.units.push_back(all_below(layer.units()));
    shard.interior.push_back(layer.units());
    shard.columns.emplace_back();
    shard.halos.push_back(local_halo(layer.inputs()));
    shard.sums.emplace_back();
  }
  shard.halos.push_back(halo_of_loss(0, 1));
  shard.all_outputs = layers.back().outputs();
  shard.outputs = all_below(shard.all_outputs);
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

std::vector<std::uint32_t> column_owners(const std::vector<TrainLayer>& layers,
                                         const std::vector<LayerPartition>& partition,
                                         std::size_t layer) {
  const auto* conv = std::get_if<ConvForm>(&layers[layer].form);
  const std::int64_t each =
      conv != nullptr ? conv->window.taps() : layers[layer - 1].features_per_unit();
  std::vector<std::uint32_t> owners;
  for (const std::uint32_t owner : owners_of(partition[split_before(layers, layer)])) {
    owners.insert(owners.end(), static_cast<std::size_t>(each), owner);
  }
  return owners;
}

Shard make_shard(Communicator& comm, const std::vector<TrainLayer>& layers,
                 const std::vector<LayerPartition>& partition, std::vector<Pattern> rows,
                 const std::vector<LayerSplit>& splits) {
  if (comm.size() == 1) {
    std::vector<TrainLayer> all;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      all.push_back({std::move(rows[l]), layers[l].activation, layers[l].form});
    }
    return whole_shard(std::move(all));
  }
  ShardMaker maker(comm.rank(), layers, partition, splits);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    maker.add(l, rows[l]);
    rows[l] = {};
  }
  return maker.finish([&](const auto& requests) { return make_halos(comm, requests); });
}

Shard shard_of(const std::vector<CsrView>& weights, const std::vector<LayerPartition>& partition,
               const Epilogue& activation, int rank) {
  // Of the network as a whole only the widths are looked at.
  std::vector<TrainLayer> layers;
  std::vector<Pattern> rows;
  for (std::size_t l = 0; l < weights.size(); ++l) {
    layers.push_back(linear_layer(Pattern::dense(weights[l].rows, weights[l].cols), activation));
    rows.push_back(rows_of(weights[l], part_of(partition[l], rank)));
  }
  if (partition.front().offsets.size() == 2) {
    for (std::size_t l = 0; l < layers.size(); ++l) layers[l].pattern = std::move(rows[l]);
    return whole_shard(std::move(layers));
  }
  ShardMaker maker(rank, layers, partition, {});
  for (std::size_t l = 0; l < layers.size(); ++l) {
    maker.add(l, rows[l]);
    rows[l] = {};
  }
  std::vector<HaloAsked> asked;
  for (std::size_t l = 1; l < weights.size(); ++l) {
    asked.push_back(asked_of(rank, weights[l], partition[l - 1], partition[l]));
  }
  return maker.finish([&](const auto& requests) { return make_halos(rank, requests, asked); });
}

Halo halo_of_all(Communicator& comm, const std::vector<TrainLayer>& layers,
                 const std::vector<LayerPartition>& partition, const Shard& shard,
                 std::size_t layer) {
  const std::size_t split = split_before(layers, layer);
  const FeatureOwners before = feature_owners(
      partition[split], layers[layer - 1].features_per_unit(), shard.units[layer - 1]);
  return make_halo(comm, before.owners, before.own, all_below(std::ssize(before.owners)));
}

}  // namespace spdnn::train
