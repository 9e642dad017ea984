// A trained network as one that can be run.
#pragma once

#include "network.hpp"
#include "spdnn/model.hpp"

namespace spdnn::train {

/// The layers with their parameters as they are; dense weights become sparse ones that are full.
[[nodiscard]] Model trained_model(const Network<float>& network, std::string origin);

}  // namespace spdnn::train
