// Who owns which rows of a network in training, and what that lets cross.
#pragma once

#include "layer.hpp"
#include "spdnn/comm.hpp"
#include "spdnn/train.hpp"

namespace spdnn::train {

struct RowOwners {
  std::vector<LayerPartition> layers;
  /// On rank 0, as `RowTraffic`, of one image; no predictions where connections will change, and of
  /// the balance only where all layers are linear.
  RowTraffic traffic;
};

/// Divides the rows of `layers` between ranks as the specification asks, or in order, as many as
/// `units` says by layer and rank; `splits` goes into what is expected to cross. Rank 0 of `all`
/// reads or searches for all of them; all ranks call it. Throws `InputError` for a partition that
/// is not of this network.
[[nodiscard]] RowOwners choose_owners(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                                      const std::vector<std::vector<std::int64_t>>& units,
                                      const std::vector<LayerSplit>& splits, Communicator& all);

}  // namespace spdnn::train
