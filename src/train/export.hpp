// A trained network as one that can be run.
#pragma once

#include "layer.hpp"
#include "rows.hpp"
#include "spdnn/model.hpp"

namespace spdnn::train {

/// A network without layers yet.
[[nodiscard]] Model trained_model(std::string origin);
/// A layer with all of its rows, of which the first array counts; dense weights become sparse ones
/// that are full.
[[nodiscard]] Layer trained_layer(const TrainLayer& layer, const RowsView<float>& rows);

}  // namespace spdnn::train
