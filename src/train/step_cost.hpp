// How the ranks share the steps of a training: as asked for, or as their devices were measured.
#pragma once

#include "device_cost.hpp"
#include "spdnn/comm.hpp"
#include "spdnn/train_plan.hpp"

namespace spdnn::train {

/// The kernels that train on a device. Throws `DeviceError` where this build has none.
[[nodiscard]] const TrainKernels<float>& kernels_for(const Device& device);

/// How a group of ranks shares the images and the rows of each step.
struct StepPlan {
  TrainProblem problem;
  TrainLayout layout;
  /// By rank; none where nothing was measured.
  std::vector<TrainDevice> devices;
  bool follow = false;  ///< measured times move shares
  std::vector<std::string> notes;
};

/// Plans the steps of all ranks of `comm` as the specification asks; each gives its own device. All
/// ranks call it, and get the same. Measures nothing where `known` tells the costs.
[[nodiscard]] StepPlan plan_steps(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                                  const std::vector<DeviceSpec>& devices, Communicator& comm,
                                  Device& device, const TrainCosts* known);

/// The same by measured speed, whatever the specification asks: every device is measured on
/// `layers`, unless that is remembered from an earlier run.
[[nodiscard]] StepPlan plan_measured(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                                     const std::vector<DeviceSpec>& devices, Communicator& comm,
                                     Device& device, Strategy strategy,
                                     const TrainCosts* known = nullptr);

/// Gives the first place to the rank that leads, whose process must be that of the first rank, for
/// it writes what all learn: the first rank, or where that is left out another one. Where none of
/// that process takes part, the first rank gets it, without images or rows; in a grid that is an
/// `InputError`. Returns what there is to say.
[[nodiscard]] std::string choose_leader(TrainLayout& layout, const std::vector<bool>& beside_first);

}  // namespace spdnn::train
