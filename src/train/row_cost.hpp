// What rows of layers cost on a rank's device, measured on the layers that are to be trained.
#pragma once

#include "layer.hpp"
#include "step_clock.hpp"

namespace spdnn::train {

/// Parts of a layer's units that are measured, from the smallest to all of them: small slices are
/// slower a row.
inline constexpr std::int64_t row_parts[] = {16, 4, 2, 1};  // one of so many

/// How many units each of `row_parts` is, ascending, none twice; none of a pooling.
[[nodiscard]] std::vector<std::int64_t> measured_units(const TrainLayer& layer);

/// Seconds that an image takes a device through so many units of the layer and back, in a panel
/// with others.
[[nodiscard]] double measure_units(const TrainLayer& layer, std::int64_t units,
                                   const TrainKernels<float>& kernels, Device& device,
                                   StepClock& clock);

}  // namespace spdnn::train
