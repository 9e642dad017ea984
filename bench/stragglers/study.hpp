// What the study measures and simulates, as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "stragglers/runs.hpp"
#include "stragglers/simulate.hpp"

namespace spdnn::bench {

/// A job and where each of its images dies, in the job's order.
struct KnownJob {
  Job job;
  std::vector<std::int32_t> last_segment;
};

/// Two-rank runs of `model` that tell what sharing rows costs: with the batches of the plan, and
/// with one group of images at a time.
struct SharingRuns {
  std::vector<RealRun> wide, narrow;
};

/// Real runs of one scenario: `runs[strategy][repetition]`, in turn. What a line costs that another
/// core wrote changes from minute to minute where cores are virtual, so `sharing` is measured
/// between them, each time with equal ranks.
struct Measurement {
  Scenario scenario;
  std::vector<std::vector<RealRun>> runs;
  SharingRuns sharing;
};
[[nodiscard]] Measurement measure(const Scenario& scenario, const Job& sharing, int repetitions);

/// Adds to `costs` what only whole runs tell: preparing and gathering, from runs of `job` on one
/// rank and on two. Returns those runs beside what the simulation makes of them.
[[nodiscard]] nlohmann::json calibrate(const KnownJob& job, int repetitions, StepCosts& costs);

/// `costs` with `meet_s` and `fetch_s` fitted to the medians of runs of `job`.
[[nodiscard]] StepCosts with_sharing(const KnownJob& job, const SharingRuns& runs, StepCosts costs);

/// A measurement beside its simulation: medians, busy and idle seconds, ratios.
[[nodiscard]] nlohmann::json describe(const Measurement& measurement,
                                      const std::vector<std::int32_t>& last_segment,
                                      const StepCosts& costs);

/// Speeds of the ranks of a simulated run with many of them.
struct ManyRanks {
  std::string name;
  const KnownJob* job = nullptr;
  std::vector<double> (*slowdowns)(std::int64_t ranks) = nullptr;
};
/// Simulated times and idle parts of every strategy by the number of ranks, each planned by
/// `make_plan` for that many ranks like the one of `profile`.
[[nodiscard]] nlohmann::json simulate_many(const ManyRanks& scenario, const Model& model,
                                           const Profile& profile, const StepCosts& costs,
                                           const std::vector<std::int64_t>& ranks);

}  // namespace spdnn::bench
