// The ranks of a run, each on a thread of its own, and what they found together.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "job.hpp"
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

/// Opens the devices of this process's ranks and runs the context's images on them, together with
/// the other processes. What all ranks found is in the first process. `profile_range` marks the
/// timed part for profilers. `run_ranks` joins the ranks, if not as the job does. Throws the first
/// error of any rank.
[[nodiscard]] Outcome run_all_ranks(const PassContext& context, const Job& job, bool profile_range,
                                    const RunRanks& run_ranks = {});

}  // namespace spdnn
