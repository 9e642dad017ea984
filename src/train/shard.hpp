// One rank's rows of a network: slices of its layers, and the halos between them.
#pragma once

#include <optional>
#include <vector>

#include "layer.hpp"
#include "spdnn/halo.hpp"
#include "spdnn/partition.hpp"
#include "spdnn/train_plan.hpp"

namespace spdnn::train {

/// What a rank computes of a layer split by inputs: sums over the inputs that it owns, of its own
/// units and of those of others that read any of them. The biases of its own units are in its part
/// of their sums. Its slice has no activation, which follows when all parts are added up.
struct PartialSums {
  std::vector<std::uint32_t> rows;  ///< original number of each row of the slice, own units first
  /// Run backward it adds the sums up at the owners of the units (`own`); forward it gives everyone
  /// the gradient by the sums that it has a part in (`inputs`, those of `rows`).
  Halo halo;
  Epilogue activation;
};

/// What a rank holds of a network whose units are divided between ranks. A layer's slice has the
/// rank's units as rows and the inputs they read as columns, in ascending order of their original
/// numbers, so that each sum has the order it has on one rank. A convolution reads whole planes. Of
/// a layer split by inputs it has the columns of the features that the rank owns, with all rows
/// that have any of them.
struct Shard {
  std::vector<TrainLayer> layers;
  /// By layer: the original number of each unit that the rank owns, in its order. Those that read
  /// own inputs alone come first, but for those that a layer split by inputs reads, which ascend.
  std::vector<std::vector<std::uint32_t>> units;
  std::vector<std::int64_t> interior;  ///< by layer: how many of them there are
  /// By layer: the original column of each of the slice's; empty where they are the same.
  std::vector<std::vector<std::uint32_t>> columns;
  /// By layer: what it reads of the layer before. The first layer's inputs are known to every rank;
  /// the last entry is that of the loss, for which every rank reads `LossPart`s of all.
  std::vector<Halo> halos;
  std::vector<std::uint32_t> outputs;            ///< the number of each of the rank's own among all
  std::int64_t all_outputs = 0;                  ///< that the network has
  std::vector<std::optional<PartialSums>> sums;  ///< by layer; of those split by inputs
};

/// The share of a rank alone: everything.
[[nodiscard]] Shard whole_shard(std::vector<TrainLayer> layers);

/// Contiguous units, in each layer as many as `counts` says, by layer and rank.
[[nodiscard]] std::vector<LayerPartition> split_by_counts(
    const std::vector<TrainLayer>& layers, const std::vector<std::vector<std::int64_t>>& counts);
/// Contiguous units, in each layer in proportion to `shares`, one for each rank, none negative.
[[nodiscard]] std::vector<LayerPartition> split_units(const std::vector<TrainLayer>& layers,
                                                      const std::vector<double>& shares);

/// The layer that says who owns what layer `layer`, no first one, reads: the last one before it
/// that has weights.
[[nodiscard]] std::size_t split_before(const std::vector<TrainLayer>& layers, std::size_t layer);
/// By column of a layer's weights, the rank that owns what it reads. Not of a first layer.
[[nodiscard]] std::vector<std::uint32_t> column_owners(const std::vector<TrainLayer>& layers,
                                                       const std::vector<LayerPartition>& partition,
                                                       std::size_t layer);

/// This rank's share of `layers` under `partition`, one entry a layer; a pooling is split as the
/// layer before it, whatever its own entry says. `splits` says how each layer is split, all of them
/// by outputs where it is empty; the first is. `rows` holds the patterns of what is this rank's:
/// rows in the order of the partition, with original columns, or as `rows_to_columns` returns them;
/// patterns of `layers` are not looked at, but for whether they are dense. All ranks call it.
[[nodiscard]] Shard make_shard(Communicator& comm, const std::vector<TrainLayer>& layers,
                               const std::vector<LayerPartition>& partition,
                               std::vector<Pattern> rows,
                               const std::vector<LayerSplit>& splits = {});

/// The share of one rank of a network of linear layers that is known as a whole, split by outputs:
/// nobody is asked, so that a rank can be tried out without the others.
[[nodiscard]] Shard shard_of(const std::vector<CsrView>& weights,
                             const std::vector<LayerPartition>& partition,
                             const Epilogue& activation, int rank);

/// What `layer` of the shard would read if its rows read everything. All ranks call it.
[[nodiscard]] Halo halo_of_all(Communicator& comm, const std::vector<TrainLayer>& layers,
                               const std::vector<LayerPartition>& partition, const Shard& shard,
                               std::size_t layer);

}  // namespace spdnn::train
