// bench_uneven: what uneven shares make of unlike devices. One rank is slowed by declared factors
// so that its times stand for those of slower devices; shares by speed are set beside even ones,
// and both beside what the summed speeds allow.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include "spdnn/io.hpp"
#include "support/awake.hpp"
#include "support/record.hpp"
#include "uneven/runs.hpp"

namespace {

using namespace spdnn;
using namespace spdnn::bench;
using nlohmann::json;

struct Arguments {
  std::filesystem::path config, data_dir, output;
  std::vector<double> slowdowns{2, 4, 8, 16};
  std::int64_t steps = 24;
  std::int64_t change = 0;
  int rounds = 3;
  std::vector<std::string> sets;
  bool asleep = false;
};

/// A step within 5 % of what the summed speeds allow, and the communication, is as good as asked
/// for.
constexpr double kOfIdeal = 1.05;

double sum_of_speeds(const std::vector<double>& slowdowns) {
  double speeds = 0.0;
  for (const double slowdown : slowdowns) speeds += 1.0 / slowdown;
  return speeds;
}

json describe(const std::vector<Timing>& timings, double communication) {
  std::vector<double> seconds;
  std::vector<double> ratios;
  for (const Timing& timing : timings) {
    seconds.push_back(timing.seconds);
    if (timing.predicted_s > 0.0) {
      ratios.push_back(timing.seconds / (timing.predicted_s + communication));
    }
  }
  json record = summarize(seconds);
  record["shares"] = timings.back().shares;
  for (const Timing& timing : timings) record["first_shares"].push_back(timing.first_shares);
  if (!timings.back().rows.empty()) record["rows"] = timings.back().rows;
  if (!ratios.empty()) record["measured_over_predicted"] = median_of(ratios);
  return record;
}

/// The longest of what the ranks take alone for their shares: above the ideal by what the shares
/// and cold caches cost, while the rest of a step is what ranks at once cost each other.
void add_alone(const Workload& work, const std::vector<double>& slowdowns, double communication,
               json& record) {
  json& by_speed = record["by_speed"];
  double longest = 0.0;
  for (std::size_t r = 0; r < slowdowns.size(); ++r) {
    const auto alone = work.alone_s(slowdowns[r], by_speed["shares"][r].get<std::int64_t>());
    if (!alone) return;
    by_speed["alone_s"].push_back(*alone);
    longest = std::max(longest, *alone);
  }
  const double measured = by_speed["median_s"];
  record["alone_of_ideal"] = longest / record["ideal_s"].get<double>();
  record["at_once_of_alone"] = measured / (longest + communication);
  std::printf(
      "  ranks alone with their shares take at most %.4f s (%.3f of ideal), at once %.3f of it\n",
      longest, record["alone_of_ideal"].get<double>(), record["at_once_of_alone"].get<double>());
}

/// One rank, shares by speed and even shares in turn.
json compare(const Workload& work, const Arguments& arguments) {
  const std::vector<double>& slowdowns = arguments.slowdowns;
  std::vector<Timing> one;
  std::vector<Timing> by_speed;
  std::vector<Timing> even;
  for (int round = 0; round < arguments.rounds; ++round) {
    one.push_back(work.time({1.0}, SplitKind::even));
    by_speed.push_back(work.time(slowdowns, SplitKind::profiled));
    even.push_back(work.time(slowdowns, SplitKind::even));
  }
  const double communication = work.communication_s(slowdowns.size());
  json record = {{"slowdowns", slowdowns},
                 {"one_rank", describe(one, 0.0)},
                 {"by_speed", describe(by_speed, communication)},
                 {"even", describe(even, communication)}};
  const double ideal = record["one_rank"]["median_s"].get<double>() / sum_of_speeds(slowdowns);
  const double bar = kOfIdeal * ideal + communication;
  const double measured = record["by_speed"]["median_s"];
  record["ideal_s"] = ideal;
  record["communication_s"] = communication;
  record["bar_s"] = bar;
  record["of_ideal"] = measured / ideal;
  record["even_of_ideal"] = record["even"]["median_s"].get<double>() / ideal;
  record["met"] = measured <= bar;
  std::printf(
      "  one rank %.4f s; ideal %.4f s + %.4f s of communication; by speed %.4f s (%.3f of "
      "ideal, bar %s), even %.4f s (%.2f)\n",
      record["one_rank"]["median_s"].get<double>(), ideal, communication, measured,
      measured / ideal, measured <= bar ? "met" : "missed",
      record["even"]["median_s"].get<double>(), record["even_of_ideal"].get<double>());
  add_alone(work, slowdowns, communication, record);
  return record;
}

/// The last device becomes three times slower in the middle.
json change_one(const Workload& work, const Arguments& arguments) {
  const double one = work.time({1.0}, SplitKind::even).seconds;
  const Change change = work.change(arguments.slowdowns, arguments.change);
  std::vector<double> after = arguments.slowdowns;
  after.back() *= kChangeFactor;
  const double ideal = one / sum_of_speeds(after);
  const double bar = kOfIdealAfterChange * ideal + work.communication_s(after.size());
  std::printf(
      "  %lld steps, the last device %g× slower from step %lld on: %.4f s a step after 20 more "
      "(%.3f of the new ideal, bar %s); weights differ by %.2g\n",
      static_cast<long long>(std::ssize(change.step_s)), kChangeFactor,
      static_cast<long long>(arguments.change), change.after_s, change.after_s / ideal,
      change.after_s <= bar ? "met" : "missed", change.weight_difference);
  return {{"slowdowns", arguments.slowdowns},
          {"at_step", arguments.change},
          {"factor", kChangeFactor},
          {"step_s", change.step_s},
          {"images", change.images},
          {"steps", change.step_s.size()},
          {"after_s", change.after_s},
          {"new_ideal_s", ideal},
          {"of_ideal", change.after_s / ideal},
          {"weight_difference", change.weight_difference},
          {"met", change.after_s <= bar}};
}

int run_bench(const Arguments& arguments, const std::vector<std::string>& command) {
  ConfigOverrides overrides;
  overrides.data_dir = arguments.data_dir;
  overrides.sets = arguments.sets;
  const RunConfig config = load_config(arguments.config, overrides);
  json result = {{"benchmark", "uneven"},
                 {"conditions", describe_conditions(command)},
                 {"config", arguments.config.filename().string()}};
  std::optional<AwakeCores> awake;
  if (!arguments.asleep) awake.emplace();
  const OtherLoad others;
  const double start = now_seconds();
  const std::unique_ptr<Workload> work = make_workload(config, arguments.steps);
  std::printf("%s, slowdowns %s\n", arguments.config.filename().c_str(),
              fmt::format("{}", fmt::join(arguments.slowdowns, ", ")).c_str());
  if (arguments.change > 0) {
    result["change"] = change_one(*work, arguments);
  } else {
    result["cases"].push_back(compare(*work, arguments));
  }
  result["cores_kept_awake"] = !arguments.asleep;
  result["other_cores"] = others.cores();
  result["quiet"] = others.quiet();
  result["seconds"] = now_seconds() - start;
  if (!arguments.output.empty()) write_file_atomically(arguments.output, result.dump(1) + '\n');
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Shares by speed beside even ones on ranks that are slowed by declared factors.");
  app.add_option("config", arguments.config, "Configuration of a training or an inference run")
      ->required();
  app.add_option("--slowdowns", arguments.slowdowns, "How many times slower each rank is")
      ->delimiter(',');
  app.add_option("--steps", arguments.steps, "Steps of each training run")
      ->check(CLI::Range(8, 100000));
  app.add_option("--change-at", arguments.change,
                 "Instead: the last rank becomes 3 times slower from this step on");
  app.add_option("--rounds", arguments.rounds, "Times that each run is repeated");
  app.add_option("--set", arguments.sets, "As of spdnn-gpu run")->allow_extra_args(false);
  app.add_flag("--asleep", arguments.asleep, "Let cores sleep while ranks do");
  app.add_option("--data-dir", arguments.data_dir, "Where data are looked up");
  app.add_option("--output", arguments.output, "JSON file to write");
  CLI11_PARSE(app, argc, argv);
  try {
    return run_bench(arguments, {argv, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
