// What the study measures and simulates, as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "stragglers/costs.hpp"
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

/// What is measured between the runs of a scenario, since it changes from minute to minute where
/// cores are virtual: a rank's own work, and the cost of a line that another core wrote.
struct Costing {
  WorkSamples steady, drowsy;
  SharingRuns sharing;
  void add(const Costing& more);
};

/// Real runs of one scenario: `runs[strategy][repetition]`, in turn.
struct Measurement {
  Scenario scenario;
  std::vector<std::vector<RealRun>> runs;
  Costing costing;
};
/// `sharing`: the job whose runs on equal ranks tell what sharing rows costs.
[[nodiscard]] Measurement measure(const Scenario& scenario, const Job& sharing,
                                  const WorkMeter& meter, int repetitions);

/// Adds to `costs` what only whole runs tell: preparing and gathering, from runs of `job` on one
/// rank and on two, and what a step takes beside its kernels, so that the run on one takes as long
/// as it did. Returns those runs beside what the simulation makes of them.
[[nodiscard]] nlohmann::json calibrate(const KnownJob& job, const WorkMeter& meter, int repetitions,
                                       StepCosts& costs);

/// `costs` with the work that was measured, and `meet_s` and `fetch_s` fitted to the medians of
/// runs of `job`.
[[nodiscard]] StepCosts with_costing(const KnownJob& job, const WorkMeter& meter,
                                     const Costing& costing, StepCosts costs);

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
