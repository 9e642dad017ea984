// Which connections a network starts with.
#pragma once

#include <vector>

#include "network.hpp"
#include "rows.hpp"
#include "spdnn/train.hpp"

namespace spdnn::train {

/// A layer with values, as a checkpoint holds it.
struct StartLayer {
  Pattern pattern;
  std::vector<float> values, bias;
};

/// What a layer is given: channels of planes; features that are none are planes of one row.
struct Planes {
  std::int64_t channels = 1, height = 1, width = 1;
  Planes(std::int64_t features) : width(features) {}  // NOLINT(google-explicit-constructor)
  Planes(std::int64_t c, std::int64_t h, std::int64_t w) : channels(c), height(h), width(w) {}
  [[nodiscard]] std::int64_t features() const { return channels * height * width; }
};

/// The densities of all layers under the specification's rule, dense layers 1.
[[nodiscard]] std::vector<double> layer_densities(const TrainSpec& spec, const Planes& input);

/// The layers of a network that takes `input`, with the connections the specification asks for.
/// `start` holds the layers training starts from, or nothing. Throws `InputError` where a layer
/// can't be made.
[[nodiscard]] std::vector<TrainLayer> make_layers(const TrainSpec& spec, const Planes& input,
                                                  const std::vector<StartLayer>& start);

/// The rows that training begins with: drawn values, or those of `start`, and their biases.
[[nodiscard]] std::vector<LayerRows<float>> first_rows(const TrainSpec& spec,
                                                       const std::vector<TrainLayer>& layers,
                                                       const std::vector<StartLayer>& start);

/// The same network with the patterns of a checkpoint, which has as many layers.
[[nodiscard]] std::vector<TrainLayer> restore_layers(const TrainSpec& spec, const Planes& input,
                                                     const std::vector<StartLayer>& saved);

/// The values of `from` on the connections of `pattern`, 0 where it has none.
[[nodiscard]] std::vector<float> values_on(const Pattern& pattern, const StartLayer& from);

}  // namespace spdnn::train
