// How much the times differ that a rank takes for one and the same piece of work between meetings.
#pragma once

#include <vector>

#include "layer.hpp"
#include "spdnn/comm.hpp"
#include "spdnn/train.hpp"

namespace spdnn::train {

/// Of every rank, as `TrainDevice::spread`: all of them take their part of the layer with most
/// work, and meet, time and again, as they will in each layer of a step. Remembered as other
/// measurements are, of ranks with devices of the same kinds. All ranks call it, and get the same.
[[nodiscard]] std::vector<std::vector<double>> measure_spreads(
    const TrainSpec& spec, const std::vector<TrainLayer>& layers, Communicator& comm,
    Device& device);

/// Few numbers that stand for many times: each that of a part of them, divided by their mean.
[[nodiscard]] std::vector<double> spread_of(std::vector<double> times);

}  // namespace spdnn::train
