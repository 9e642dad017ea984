// A training run: labelled images in, a trained network, its metrics and checkpoints out.
#pragma once

#include "spdnn/run.hpp"

namespace spdnn {

/// Runs a configuration whose job is `train`. Writes `metrics.jsonl` and checkpoints to the
/// output folder.
[[nodiscard]] RunResult run_training(const RunConfig& config, Progress& progress);

}  // namespace spdnn
