// What one image makes cross between ranks that share a network, counted from its connections.
#pragma once

#include "layer.hpp"
#include "spdnn/partition.hpp"
#include "spdnn/train_plan.hpp"

namespace spdnn::train {

/// Words that all ranks together send for one image because of layer `layer`, the same there and
/// back. By outputs: each feature that the layer reads goes to all ranks that have a row with it,
/// but its owner. By inputs: of each sum goes a part from all ranks that own an input of it, but
/// the unit's owner. None for a first layer and for poolings.
[[nodiscard]] std::int64_t crossing_words(const std::vector<TrainLayer>& layers,
                                          const std::vector<LayerPartition>& partition,
                                          std::size_t layer, LayerSplit split);

}  // namespace spdnn::train
