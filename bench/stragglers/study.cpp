// Measuring, calibrating and simulating; medians and ratios.
#include "stragglers/study.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "support/record.hpp"

namespace spdnn::bench {
namespace {

using nlohmann::json;

std::vector<double> seconds_of(const std::vector<RealRun>& runs) {
  std::vector<double> seconds;
  for (const RealRun& run : runs) seconds.push_back(run.seconds);
  return seconds;
}

double median_seconds(const std::vector<RealRun>& runs) { return median_of(seconds_of(runs)); }

double busiest(const RealRun& run) {
  double most = 0.0;
  for (const DeviceResult& rank : run.ranks) most = std::max(most, rank.busy_s);
  return most;
}

/// The run whose time is nearest to the median.
const RealRun& typical(const std::vector<RealRun>& runs) {
  const double median = median_seconds(runs);
  return *std::min_element(runs.begin(), runs.end(), [&](const RealRun& a, const RealRun& b) {
    return std::abs(a.seconds - median) < std::abs(b.seconds - median);
  });
}

/// Simulated seconds of `plan` on equal ranks.
double predict(const KnownJob& job, const Plan& plan, const StepCosts& costs) {
  const std::vector<double> equal(plan.speeds.size(), 1.0);
  return simulate(plan, job.last_segment, equal, costs).seconds;
}

/// What a plan's time on equal ranks consists of: it is linear in `meet_s` and `fetch_s`.
struct SharingTerms {
  double none, meet, fetch;
};
SharingTerms sharing_terms(const KnownJob& job, const Plan& plan, StepCosts costs) {
  costs.meet_s = costs.fetch_s = 0.0;
  const double none = predict(job, plan, costs);
  costs.meet_s = 1.0;
  const double meet = predict(job, plan, costs) - none;
  costs.meet_s = 0.0;
  costs.fetch_s = 1.0;
  return {none, meet, predict(job, plan, costs) - none};
}

json describe_rank(double busy_s, double idle_s, std::int64_t begun, std::int64_t taken_over,
                   std::int64_t helped) {
  return {{"busy_s", busy_s},
          {"idle_s", idle_s},
          {"images", begun},
          {"images_taken_over", taken_over},
          {"helped_segments", helped}};
}

json describe_ranks(const std::vector<DeviceResult>& ranks) {
  json list = json::array();
  for (const DeviceResult& r : ranks) {
    list.push_back(
        describe_rank(r.busy_s, r.idle_s, r.images, r.images_taken_over, r.helped_segments));
  }
  return list;
}

json describe_ranks(const std::vector<SimulatedRank>& ranks) {
  json list = json::array();
  for (const SimulatedRank& r : ranks) {
    list.push_back(describe_rank(r.busy_s, r.idle_s, r.begun, r.taken_over, r.helped_segments));
  }
  return list;
}

/// Seconds if all ranks of a run without sharing had been busy to its end.
double evenly_spread(const RealRun& data, const std::vector<double>& slowdowns) {
  double work = 0.0;
  double speed = 0.0;
  for (std::size_t r = 0; r < slowdowns.size(); ++r) {
    work += data.ranks[r].busy_s / slowdowns[r];
    speed += 1.0 / slowdowns[r];
  }
  return work / speed;
}

}  // namespace

void Costing::add(const Costing& more) {
  steady.add(more.steady);
  drowsy.add(more.drowsy);
  const auto append = [](const std::vector<RealRun>& from, std::vector<RealRun>& to) {
    to.insert(to.end(), from.begin(), from.end());
  };
  append(more.sharing.wide, sharing.wide);
  append(more.sharing.narrow, sharing.narrow);
}

Measurement measure(const Scenario& scenario, const Job& sharing, const WorkMeter& meter,
                    int repetitions) {
  Measurement found;
  found.scenario = scenario;
  const auto strategies = std::ssize(kStrategies);
  const std::vector<double> equal(2, 1.0);
  found.runs.resize(std::size(kStrategies));
  for (int repetition = -1; repetition < repetitions; ++repetition) {  // the first warms up
    const auto keep = [&](RealRun run, std::vector<RealRun>& runs) {
      if (repetition >= 0) runs.push_back(std::move(run));
    };
    for (std::ptrdiff_t i = 0; i < strategies; ++i) {
      const std::ptrdiff_t s = repetition % 2 == 0 ? i : strategies - 1 - i;
      keep(run_once(*scenario.job, scenario.slowdowns, kStrategies[s]), found.runs[s]);
    }
    keep(run_once(sharing, equal, Strategy::model), found.costing.sharing.wide);
    keep(run_once(sharing, equal, Strategy::model, kSideBySide), found.costing.sharing.narrow);
    if (repetition < 0) continue;
    meter.pass(false, found.costing.steady);
    meter.pass(true, found.costing.drowsy);
  }
  return found;
}

StepCosts with_costing(const KnownJob& job, const WorkMeter& meter, const Costing& costing,
                       StepCosts costs) {
  costs.steady = meter.costs(costing.steady);
  costs.drowsy = meter.costs(costing.drowsy);
  const SharingRuns& runs = costing.sharing;
  const SharingTerms w = sharing_terms(job, runs.wide.front().plan, costs);
  const SharingTerms n = sharing_terms(job, runs.narrow.front().plan, costs);
  const double wide = median_seconds(runs.wide) - w.none;
  const double narrow = median_seconds(runs.narrow) - n.none;
  const double determinant = w.meet * n.fetch - n.meet * w.fetch;
  costs.meet_s = (wide * n.fetch - narrow * w.fetch) / determinant;
  costs.fetch_s = (w.meet * narrow - n.meet * wide) / determinant;
  // A cost below 0 is none, and the other is what the runs with the plan's batches say.
  if (costs.meet_s < 0.0) {
    costs.meet_s = 0.0;
    costs.fetch_s = std::max(wide / w.fetch, 0.0);
  } else if (costs.fetch_s < 0.0) {
    costs.fetch_s = 0.0;
    costs.meet_s = std::max(wide / w.meet, 0.0);
  }
  return costs;
}

json calibrate(const KnownJob& job, const WorkMeter& meter, int repetitions, StepCosts& costs) {
  std::vector<RealRun> one, two;
  WorkSamples work;
  for (int repetition = -1; repetition < repetitions; ++repetition) {  // the first warms up
    RealRun alone = run_once(job.job, {1.0}, Strategy::data);
    RealRun both = run_once(job.job, {1.0, 1.0}, Strategy::data);
    if (repetition < 0) continue;
    one.push_back(std::move(alone));
    two.push_back(std::move(both));
    meter.pass(false, work);
  }
  costs.steady = meter.costs(work);
  const auto prepare = [](const std::vector<RealRun>& runs) {
    std::vector<double> seconds;
    for (const RealRun& run : runs) seconds.push_back(run.seconds - run.resident_s);
    return median_of(seconds);
  };
  costs.prepare_shared_s = std::clamp(2.0 * (prepare(one) - prepare(two)), 0.0, prepare(one));
  costs.prepare_alone_s = prepare(one) - costs.prepare_shared_s;
  std::vector<double> gathering;
  for (const RealRun& run : two) gathering.push_back(run.seconds - busiest(run));
  costs.finish_s = median_of(gathering);
  const double kernels = predict(job, one.front().plan, costs);
  costs.step_s = 1.0;
  const double steps = predict(job, one.front().plan, costs) - kernels;
  costs.step_s = std::max(median_seconds(one) - kernels, 0.0) / steps;

  json runs = json::array();
  const auto add = [&](const char* name, const std::vector<RealRun>& real) {
    runs.push_back({{"run", name},
                    {"measured", summarize(seconds_of(real))},
                    {"simulated_s", predict(job, real.front().plan, costs)}});
  };
  add("data, 1 rank", one);
  add("data, 2 ranks", two);
  return runs;
}

json describe(const Measurement& measurement, const std::vector<std::int32_t>& last_segment,
              const StepCosts& costs) {
  const Scenario& scenario = measurement.scenario;
  std::vector<double> medians;
  for (const auto& runs : measurement.runs) medians.push_back(median_seconds(runs));
  json list = json::array();
  for (std::size_t s = 0; s < medians.size(); ++s) {
    double best = std::numeric_limits<double>::infinity();
    for (std::size_t other = 0; other < medians.size(); ++other) {
      if (other != s) best = std::min(best, medians[other]);
    }
    const RealRun& run = typical(measurement.runs[s]);
    const SimulatedRun simulated = simulate(run.plan, last_segment, scenario.slowdowns, costs);
    list.push_back({{"strategy", to_string(kStrategies[s])},
                    {"infer", summarize(seconds_of(measurement.runs[s]))},
                    {"ranks", describe_ranks(run.ranks)},
                    {"speedup_over_data", medians[0] / medians[s]},
                    {"of_best_other", medians[s] / best},
                    {"simulated",
                     {{"seconds", simulated.seconds},
                      {"relative_error", simulated.seconds / medians[s] - 1.0},
                      {"ranks", describe_ranks(simulated.ranks)}}}});
  }
  return {{"scenario", scenario.name},
          {"slowdowns", scenario.slowdowns},
          {"meet_s", costs.meet_s},
          {"fetch_s", costs.fetch_s},
          {"sharing_runs",
           {{"wide", summarize(seconds_of(measurement.costing.sharing.wide))},
            {"narrow", summarize(seconds_of(measurement.costing.sharing.narrow))}}},
          {"evenly_spread_s", evenly_spread(typical(measurement.runs[0]), scenario.slowdowns)},
          {"strategies", list}};
}

json simulate_many(const ManyRanks& scenario, const Model& model, const Profile& profile,
                   const StepCosts& costs, const std::vector<std::int64_t>& ranks) {
  ModelStats stats = stats_of(model, {});
  stats.images = std::ssize(scenario.job->last_segment);
  json points = json::array();
  for (const std::int64_t count : ranks) {
    Profile many = profile;
    many.ranks.assign(static_cast<std::size_t>(count), profile.ranks.front());
    const std::vector<double> slowdowns = scenario.slowdowns(count);
    json list = json::array();
    for (const Strategy strategy : kStrategies) {
      PlanRequest request;
      request.strategy = strategy;
      request.split.kind = SplitKind::even;
      const SimulatedRun run =
          simulate(make_plan(stats, many, request), scenario.job->last_segment, slowdowns, costs);
      double idle = 0.0;
      for (const SimulatedRank& rank : run.ranks) idle += rank.idle_s;
      list.push_back({{"strategy", to_string(strategy)},
                      {"seconds", run.seconds},
                      {"idle_part", idle / (run.seconds * static_cast<double>(count))}});
    }
    points.push_back({{"ranks", count}, {"slowdowns", slowdowns}, {"strategies", list}});
  }
  return {{"scenario", scenario.name}, {"points", points}};
}

}  // namespace spdnn::bench
