// Which connections a network starts with.
#pragma once

#include <vector>

#include "network.hpp"
#include "spdnn/train.hpp"

namespace spdnn::train {

/// A layer with values, as a checkpoint holds it.
struct StartLayer {
  Pattern pattern;
  std::vector<float> values, bias;
};

/// The densities of all layers under the specification's rule, dense layers 1.
[[nodiscard]] std::vector<double> layer_densities(const TrainSpec& spec, std::int64_t inputs);

/// The layers of a network that takes `inputs`, with the connections the specification asks for.
/// `start` holds the layers training starts from, or nothing. Throws `InputError` where a layer
/// can't be made.
[[nodiscard]] std::vector<TrainLayer> make_layers(const TrainSpec& spec, std::int64_t inputs,
                                                  const std::vector<StartLayer>& start);

/// The values of `from` on the connections of `pattern`, 0 where it has none.
[[nodiscard]] std::vector<float> values_on(const Pattern& pattern, const StartLayer& from);

}  // namespace spdnn::train
