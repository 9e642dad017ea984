// How the layers of ranks that share rows are to be split, and what a reader is told of it.
#pragma once

#include <string>
#include <vector>

#include "layer.hpp"
#include "spdnn/device.hpp"
#include "spdnn/train.hpp"
#include "spdnn/train_plan.hpp"

namespace spdnn::train {

/// Throws `InputError` where a specification asks for layers split by inputs, and no ranks could
/// share any.
void check_input_split(const TrainSpec& spec, const std::vector<DeviceSpec>& devices);

/// How the specification has the layers split, by layer; none where that is to be found out. Parts
/// of sums are added up in the host's memory, so that only CPU ranks split layers by inputs.
[[nodiscard]] std::vector<LayerSplit> given_splits(const TrainSpec& spec,
                                                   const std::vector<TrainLayer>& layers,
                                                   const std::vector<DeviceSpec>& devices);

/// Says which layers are split by inputs and what that spares; or where none is though that was
/// asked for, or would make fewer bytes cross, why.
void add_split_note(const TrainSpec& spec, const std::vector<DeviceSpec>& devices,
                    const TrainProblem& problem, const TrainLayout& layout,
                    std::vector<std::string>& notes);

}  // namespace spdnn::train
