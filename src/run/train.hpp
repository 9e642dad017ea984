// A training run: labelled images in, a trained network, its metrics and checkpoints out.
#pragma once

#include "spdnn/run.hpp"

namespace spdnn {

/// Runs a configuration whose job is `train` on the processes of `world`. The first process writes
/// `metrics.jsonl` and checkpoints to the output folder, which all of them can read.
[[nodiscard]] RunResult run_training(const RunConfig& config, Progress& progress, World& world);

}  // namespace spdnn
