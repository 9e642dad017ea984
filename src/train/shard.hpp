// One rank's rows of a network: slices of its layers, and the halos between them.
#pragma once

#include <vector>

#include "layer.hpp"
#include "spdnn/halo.hpp"
#include "spdnn/partition.hpp"

namespace spdnn::train {

/// What a rank holds of a network whose units are divided between ranks. A layer's slice has the
/// rank's units as rows and the inputs they read as columns, in ascending order of their original
/// numbers, so that each sum has the order it has on one rank. A convolution reads whole planes.
struct Shard {
  std::vector<TrainLayer> layers;
  /// By layer: the original number of each unit. Those that read own inputs alone come first.
  std::vector<std::vector<std::uint32_t>> units;
  std::vector<std::int64_t> interior;  ///< by layer: how many of them there are
  /// By layer: the original column of each of the slice's; empty where they are the same.
  std::vector<std::vector<std::uint32_t>> columns;
  /// By layer: what it reads of the layer before. The first layer's inputs are known to every rank;
  /// the last entry is that of the loss, which reads all outputs.
  std::vector<Halo> halos;
};

/// The share of a rank alone: everything.
[[nodiscard]] Shard whole_shard(std::vector<TrainLayer> layers);

/// Contiguous units, in each layer as many as `counts` says, by layer and rank.
[[nodiscard]] std::vector<LayerPartition> split_by_counts(
    const std::vector<TrainLayer>& layers, const std::vector<std::vector<std::int64_t>>& counts);
/// Contiguous units, in each layer in proportion to `shares`, one for each rank, none negative.
[[nodiscard]] std::vector<LayerPartition> split_units(const std::vector<TrainLayer>& layers,
                                                      const std::vector<double>& shares);

/// This rank's share of `layers` under `partition`, one entry a layer; a pooling is split as the
/// layer before it, whatever its own entry says. `rows` holds the patterns of this rank's rows in
/// the order of the partition, with original columns; those of `layers` are not looked at, but for
/// whether they are dense. All ranks call it.
[[nodiscard]] Shard make_shard(Communicator& comm, const std::vector<TrainLayer>& layers,
                               const std::vector<LayerPartition>& partition,
                               const std::vector<Pattern>& rows);

/// What `layer` of the shard would read if its rows read everything. All ranks call it.
[[nodiscard]] Halo halo_of_all(Communicator& comm, const std::vector<TrainLayer>& layers,
                               const std::vector<LayerPartition>& partition, const Shard& shard,
                               std::size_t layer);

}  // namespace spdnn::train
