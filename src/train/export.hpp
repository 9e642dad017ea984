// A trained network as one that can be run.
#pragma once

#include "layer.hpp"
#include "rows.hpp"
#include "spdnn/model.hpp"

namespace spdnn::train {

/// The layers with all of their rows; dense weights become sparse ones that are full.
[[nodiscard]] Model trained_model(const std::vector<TrainLayer>& layers,
                                  std::vector<LayerRows<float>> rows, std::string origin);

}  // namespace spdnn::train
