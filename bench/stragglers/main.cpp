// The straggler study: strategies against ranks with more work and slower ranks, measured on two
// ranks and simulated on more. docs/stragglers.md tells what came out.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>

#include "spdnn/io.hpp"
#include "stragglers/costs.hpp"
#include "stragglers/study.hpp"
#include "support/record.hpp"

namespace {

using namespace spdnn;
using namespace spdnn::bench;
using nlohmann::json;

struct Arguments {
  std::filesystem::path data_dir, mnist, work_dir, output;
  std::int64_t neurons = 1024, layers = 120, images = 60000;
  int repetitions = 7;
};

/// Two orders of the images: the official one, and the survivors first.
struct Jobs {
  Model model;
  Csr images;
  Profile profile;  ///< of one rank
  Plan plan;        ///< of equal ranks
  KnownJob official, sorted;
  std::int64_t survivors = 0;
  StepCosts costs;
};

void say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

/// What the steps of a run cost beside a rank's own work.
StepCosts measure_costs(const Jobs& jobs, const Plan& plan) {
  StepCosts costs;
  for (const Segment& segment : plan.segments) {
    double edges = 0.0;
    for (std::int64_t l = segment.first; l < segment.first + segment.count; ++l) {
      edges += static_cast<double>(layer_edges(jobs.model.layers[l]));
    }
    costs.segment_edges.push_back(edges);
  }
  costs.copy_s = measure_copy(jobs.model.inputs(), panel_width(jobs.profile.ranks.front().device));
  costs.wake_s = measure_wake();
  return costs;
}

Jobs prepare(const Arguments& arguments) {
  Jobs jobs;
  jobs.images =
      study_images(arguments.mnist, arguments.neurons, arguments.images, arguments.work_dir);
  const Csr& images = jobs.images;
  std::vector<std::int64_t> order(static_cast<std::size_t>(images.rows()));
  std::iota(order.begin(), order.end(), 0);
  jobs.official.job = make_job(arguments.data_dir, arguments.neurons, arguments.layers, images,
                               order, arguments.work_dir / "official");
  RunConfig& config = jobs.official.job.config;
  std::vector<std::string> notes;
  jobs.model = load_model(config, notes);
  if (dead_stays_dead_from(jobs.model) != 0) {
    throw InputError("the study needs a network in which dead images stay dead from layer 0 on");
  }
  config.devices.resize(1);
  jobs.profile = profile_devices(config, jobs.model, false);
  jobs.plan = run_once(jobs.official.job, {1.0, 1.0}, Strategy::data).plan;
  const Plan& plan = jobs.plan;
  const std::vector<std::int32_t> last =
      find_last_segments(jobs.model, images, plan, usable_cores().front());
  const auto end = static_cast<std::int32_t>(plan.segments.size());
  jobs.survivors = std::count(last.begin(), last.end(), end);
  if (2 * jobs.survivors > images.rows()) {
    throw InputError(fmt::format("{} of {} images survive: they do not fit one of two even shares",
                                 jobs.survivors, images.rows()));
  }
  jobs.official.last_segment = last;
  std::stable_partition(order.begin(), order.end(), [&](std::int64_t i) { return last[i] == end; });
  for (const std::int64_t i : order) jobs.sorted.last_segment.push_back(last[i]);
  jobs.sorted.job = make_job(arguments.data_dir, arguments.neurons, arguments.layers, images,
                             std::move(order), arguments.work_dir / "sorted");
  say(fmt::format("{} images, {} survive; batches of {}", images.rows(), jobs.survivors,
                  plan.batch[0]));
  jobs.costs = measure_costs(jobs, plan);
  return jobs;
}

json describe_work(const WorkCosts& work) {
  return {{"segment_s", work.segment_s}, {"load_s", work.load_s}, {"pack_s", work.pack_s}};
}

json describe_costs(const StepCosts& costs) {
  return {{"steady", describe_work(costs.steady)},
          {"drowsy", describe_work(costs.drowsy)},
          {"step_s", costs.step_s},
          {"copy_s", costs.copy_s},
          {"wake_s", costs.wake_s},
          {"meet_s", costs.meet_s},
          {"fetch_s", costs.fetch_s},
          {"prepare_alone_s", costs.prepare_alone_s},
          {"prepare_shared_s", costs.prepare_shared_s},
          {"finish_s", costs.finish_s}};
}

/// All strategies in all scenarios; false where categories differ. The costs become what was
/// measured in all of them together.
bool run_scenarios(Jobs& jobs, const WorkMeter& meter, int repetitions, json& result) {
  const Job* official = &jobs.official.job;
  const Job* sorted = &jobs.sorted.job;
  const Scenario scenarios[] = {{"official order", official, {1.0, 1.0}},
                                {"survivors in one share", sorted, {1.0, 1.0}},
                                {"one rank 3x slower", official, {1.0, 3.0}},
                                {"survivors in the slower rank's share", sorted, {3.0, 1.0}}};
  std::vector<std::int64_t> expected;
  bool equal = true;
  Costing costing;
  for (const Scenario& scenario : scenarios) {
    const Measurement found = measure(scenario, *official, meter, repetitions);
    for (const auto& runs : found.runs) {
      for (const RealRun& run : runs) {
        if (expected.empty()) expected = run.categories;
        equal = equal && run.categories == expected;
      }
    }
    const KnownJob& job = scenario.job == official ? jobs.official : jobs.sorted;
    const json record = describe(found, job.last_segment,
                                 with_costing(jobs.official, meter, found.costing, jobs.costs));
    costing.add(found.costing);
    say(fmt::format("{} (evenly spread: {:.4f} s)", scenario.name,
                    record["evenly_spread_s"].get<double>()));
    for (const json& s : record["strategies"]) {
      say(fmt::format(
          "  {:16} {:.4f} s  {:5.2f}x over data  {:5.3f} of best other  simulated {:+.1f} %",
          s["strategy"].get<std::string>(), s["infer"]["median_s"].get<double>(),
          s["speedup_over_data"].get<double>(), s["of_best_other"].get<double>(),
          100.0 * s["simulated"]["relative_error"].get<double>()));
    }
    result["scenarios"].push_back(record);
  }
  jobs.costs = with_costing(jobs.official, meter, costing, jobs.costs);
  result["categories"] = {{"count", expected.size()}, {"equal", equal}};
  return equal && std::ssize(expected) == jobs.survivors;
}

std::vector<double> equal_speeds(std::int64_t ranks) {
  return std::vector<double>(static_cast<std::size_t>(ranks), 1.0);
}

std::vector<double> quarter_slow(std::int64_t ranks) {
  std::vector<double> slowdowns = equal_speeds(ranks);
  for (std::size_t r = 0; r < slowdowns.size(); r += 4) slowdowns[r] = 3.0;
  return slowdowns;
}

/// Between 1 and 4 times slower, evenly spread by chance; the first ranks are the same for all.
std::vector<double> random_speeds(std::int64_t ranks) {
  std::mt19937 random(1);
  std::vector<double> slowdowns = equal_speeds(ranks);
  for (double& slowdown : slowdowns) slowdown += 3.0 * static_cast<double>(random()) / 4294967296.0;
  return slowdowns;
}

void simulate_scenarios(const Jobs& jobs, json& result) {
  const std::vector<std::int64_t> ranks = {2, 4, 8, 16, 32, 64};
  const ManyRanks scenarios[] = {{"official order", &jobs.official, equal_speeds},
                                 {"survivors first", &jobs.sorted, equal_speeds},
                                 {"a quarter of the ranks 3x slower", &jobs.official, quarter_slow},
                                 {"random speeds", &jobs.official, random_speeds}};
  for (const ManyRanks& scenario : scenarios) {
    result["many_ranks"].push_back(
        simulate_many(scenario, jobs.model, jobs.profile, jobs.costs, ranks));
  }
}

int run_study(const Arguments& arguments, const std::vector<std::string>& command) {
  json result = {{"benchmark", "stragglers"},
                 {"conditions", describe_conditions(command)},
                 {"neurons", arguments.neurons},
                 {"layers", arguments.layers},
                 {"images", arguments.images}};
  const double start = now_seconds();
  const OtherLoad others;
  Jobs jobs = prepare(arguments);
  result["survivors"] = jobs.survivors;
  const WorkMeter meter(jobs.model, jobs.images, jobs.plan, usable_cores().front());
  result["calibration"] = calibrate(jobs.official, meter, arguments.repetitions, jobs.costs);
  for (const json& run : result["calibration"]) {
    say(fmt::format("{:32} {:.4f} s, simulated {:.4f} s", run["run"].get<std::string>(),
                    run["measured"]["median_s"].get<double>(), run["simulated_s"].get<double>()));
  }
  const bool agree = run_scenarios(jobs, meter, arguments.repetitions, result);
  result["costs"] = describe_costs(jobs.costs);
  simulate_scenarios(jobs, result);
  result["other_cores"] = others.cores();
  result["seconds"] = now_seconds() - start;
  if (!arguments.output.empty()) write_file_atomically(arguments.output, result.dump(1) + '\n');
  if (!agree) std::fprintf(stderr, "bench_stragglers: categories differ between strategies\n");
  return static_cast<int>(agree ? ExitStatus::done : ExitStatus::wrong);
}

}  // namespace

int main(int argc, char** argv) try {
  Arguments arguments;
  arguments.work_dir = std::filesystem::temp_directory_path() / "spdnn-bench";
  CLI::App app("Measures every strategy on two ranks with stragglers, and simulates more ranks.");
  app.add_option("--data-dir", arguments.data_dir, "Folder with the official files")
      ->envname("SPDNN_DATA")
      ->required();
  app.add_option("--mnist", arguments.mnist, "idx file of MNIST's training images")
      ->check(CLI::ExistingFile)
      ->required();
  app.add_option("--neurons", arguments.neurons, "Size of the official network");
  app.add_option("--layers", arguments.layers, "Its layers");
  app.add_option("--images", arguments.images, "The first so many")
      ->check(CLI::Range(std::int64_t{32}, std::int64_t{60000}));
  app.add_option("--repetitions", arguments.repetitions, "Timed runs of each strategy")
      ->check(CLI::Range(1, 1000));
  app.add_option("--work-dir", arguments.work_dir, "Where images are kept");
  app.add_option("--output", arguments.output, "Result file (JSON)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(ExitStatus::bad_input);
  }
  return run_study(arguments, {argv, argv + argc});
} catch (const spdnn::Error& error) {
  std::fprintf(stderr, "bench_stragglers: %s\n", error.what());
  return static_cast<int>(error.status());
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench_stragglers: %s\n", error.what());
  return static_cast<int>(spdnn::ExitStatus::failure);
}
