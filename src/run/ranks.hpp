// All ranks of a run, each on a thread of its own, and what they found together.
#pragma once

#include <map>
#include <vector>

#include "pass.hpp"

namespace spdnn {

/// What all ranks together found.
struct Outcome {
  std::vector<std::int64_t> ids;  ///< living images, ascending, as indices of those really run
  std::map<std::int64_t, std::vector<float>> outputs;  ///< last activations of those that are kept
  std::vector<PassResult> ranks;
  double infer_s = 0.0, resident_s = 0.0;
  std::int64_t peak_device_bytes = 0;
};

/// Opens `specs`' devices, one for each rank of the context's plan, and runs the context's images
/// on them. `profile_range` marks the timed part for profilers. Throws the first error of any rank.
[[nodiscard]] Outcome run_all_ranks(const PassContext& context,
                                    const std::vector<DeviceSpec>& specs, bool profile_range);

}  // namespace spdnn
