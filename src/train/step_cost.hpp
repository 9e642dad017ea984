// What a training step costs on each rank's device, measured on the network that is to be trained,
// and the shares of images that follow from it.
#pragma once

#include "batch_pass.hpp"
#include "spdnn/balance.hpp"
#include "spdnn/comm.hpp"
#include "spdnn/train.hpp"

namespace spdnn::train {

/// The kernels that train on a device, the preferred ones of this build. Throws `DeviceError` where
/// there are none.
[[nodiscard]] const TrainKernels<float>& kernels_for(const Device& device);

/// How a group of ranks shares the images of each step.
struct StepPlan {
  SharePlan shares;             ///< of a whole batch, by rank
  std::int64_t grain = 1;       ///< images that are shared together: a panel
  std::vector<RankCost> costs;  ///< by rank; none where nothing was measured
  bool follow = false;          ///< measured times move shares
  std::vector<std::string> notes;
};

/// Plans the steps of all ranks of `comm` as the specification asks; each gives its own device. All
/// ranks call it, and get the same.
[[nodiscard]] StepPlan plan_steps(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                                  const std::vector<DeviceSpec>& devices, Communicator& comm,
                                  Device& device);

/// The same with shares by speed: every device is measured on `layers` at several numbers of
/// images, one device at a time, unless that is remembered from an earlier run.
[[nodiscard]] StepPlan plan_measured(const TrainSpec& spec, const std::vector<TrainLayer>& layers,
                                     const std::vector<DeviceSpec>& devices, Communicator& comm,
                                     Device& device);

}  // namespace spdnn::train
