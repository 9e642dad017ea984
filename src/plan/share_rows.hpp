// What ranks that share rows do between two meetings, and what they tell one another there.
#pragma once

#include "spdnn/train_plan.hpp"

namespace spdnn {

/// Seconds that an image takes a device which owns `count` units of a layer, until ranks meet
/// again: of that layer, where it is split by outputs, and of the next, where that is split by
/// inputs and so reads what these units put out. A part of its inputs costs what as large a part of
/// its rows does.
[[nodiscard]] double phase_seconds(const TrainProblem& problem, const TrainDevice& device,
                                   std::size_t layer, std::int64_t count);

/// What the exchanges of so many images cost ranks that share rows, each layer's there and back:
/// of its inputs, or of its sums.
[[nodiscard]] double exchange_seconds(const TrainProblem& problem, std::int64_t ranks,
                                      std::int64_t images);

}  // namespace spdnn
