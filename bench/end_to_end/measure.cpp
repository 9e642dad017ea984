// Alternating runs, medians, ratios, and the fraction of the machine's limits that was reached.
#include "end_to_end/measure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "limits/floor.hpp"
#include "spdnn/limits.hpp"
#include "spdnn/op.hpp"
#include "support/record.hpp"

namespace spdnn::bench {
namespace {

using nlohmann::json;

/// Between two runs, so that the threads of the last one have gone to sleep.
constexpr auto kPause = std::chrono::milliseconds(200);

/// Seconds a workload may still spend on waiting for a quiet machine.
class Patience {
 public:
  explicit Patience(double seconds) : left_(seconds) {}
  [[nodiscard]] bool exhausted() const { return left_ <= 0.0; }
  void spend(double seconds) { left_ -= seconds; }
  /// Waits until others have kept still for a second, while patience lasts.
  void wait_for_quiet() {
    while (!exhausted()) {
      const double start = now_seconds();
      const OtherLoad others;
      std::this_thread::sleep_for(std::chrono::seconds(1));
      const bool quiet = others.quiet();
      spend(now_seconds() - start);
      if (quiet) return;
    }
  }

 private:
  double left_;
};

struct Runs {
  Sample first;  ///< the warm-up
  std::vector<double> seconds;
  std::vector<double> compile_s;
  std::vector<double> other_cores;  ///< of each timed run
  bool same_categories = true;      ///< in every run
  bool quiet = true;                ///< in every run that counts
  int repeated = 0;                 ///< runs that were disturbed and do not count
};

void warm_up(Peer& peer, Runs& runs) {
  std::this_thread::sleep_for(kPause);
  runs.first = peer.run(true);
}

/// Adds a timed run. One that other processes disturbed is made again while patience lasts.
void add_run(Peer& peer, Patience& patience, Runs& runs) {
  std::this_thread::sleep_for(kPause);
  for (;;) {
    patience.wait_for_quiet();
    const double start = now_seconds();
    const OtherLoad others;
    const Sample sample = peer.run(false);
    const double cores = others.cores();
    const bool quiet = others.quiet();
    runs.same_categories = runs.same_categories && sample.categories == runs.first.categories;
    if (quiet || patience.exhausted()) {
      runs.quiet = runs.quiet && quiet;
      runs.other_cores.push_back(cores);
      runs.seconds.push_back(sample.seconds);
      runs.compile_s.push_back(sample.compile_s);
      return;
    }
    patience.spend(now_seconds() - start);
    ++runs.repeated;
  }
}

/// Edges a second that the floors of all layers allow, `images` of all threads being run at once.
json limits_for(const Workload& workload, std::int64_t images, int threads) {
  const std::int64_t width = panel_width(list_devices().front());
  double seconds = 0.0;
  double most = 0.0;
  std::string limit;
  for (const Csr& layer : workload.weights) {
    const Floor floor = floor_of(work_of(layer.view()), images, width, threads);
    seconds += floor.seconds;
    if (floor.seconds > most) limit = floor.limit;
    most = std::max(most, floor.seconds);
  }
  const std::int64_t panel = workload.images.cols() * width * 4;
  return {{"limit", limit},
          {"limit_edges_per_s", workload.edges_per_image() * static_cast<double>(images) / seconds},
          {"fma_edges_per_s", limits::fma_rate(threads)},
          {"gather_edges_per_s", limits::gather_rate(panel, threads)},
          {"gather_footprint_bytes", panel}};
}

json describe_peer(const Workload& workload, const Peer& peer, const Runs& runs) {
  json record = summarize(runs.seconds);
  const double median = record["median_s"];
  record["name"] = peer.name();
  record["library"] = peer.library();
  record["threads"] = peer.threads();
  record["first_run_s"] = runs.first.seconds;
  record["nominal_edges_per_s"] = workload.nominal_edges() / median;
  record["other_cores"] = runs.other_cores;
  record["disturbed_runs_repeated"] = runs.repeated;
  record["compile_s"] = median_of(runs.compile_s);
  if (runs.first.executed_edges > 0.0) {
    const double rate = runs.first.executed_edges / median;
    record["edges_nominal"] = workload.nominal_edges();
    record["edges_before_compile"] = runs.first.edges_before_compile;
    record["executed_edges"] = runs.first.executed_edges;
    record["executed_edges_per_s"] = rate;
    record["images_at_once"] = runs.first.images_at_once;
    if (runs.first.compile_s > 0.0) return record;  // the limits are those of the network as given
    record["limits"] = limits_for(workload, runs.first.images_at_once, peer.threads());
    record["of_limit"] = rate / record["limits"]["limit_edges_per_s"].get<double>();
    record["of_gather"] = rate / record["limits"]["gather_edges_per_s"].get<double>();
  }
  return record;
}

/// Medians of every other library over those of this project on as many threads; for a compiled
/// network also with the time to compile it added to every run.
json ratios(const json& peers) {
  json found = json::object();
  for (const json& own : peers) {
    const std::string library = own["library"];
    if (!library.starts_with("spdnn")) continue;
    for (const json& other : peers) {
      if (other["library"].get<std::string>().starts_with("spdnn")) continue;
      if (other["threads"] != own["threads"]) continue;
      const double theirs = other["median_s"];
      const double ours = own["median_s"];
      const double compile = own["compile_s"];
      json& to = found[library][other["name"].get<std::string>()];
      to = {{"inference", theirs / ours}};
      if (compile > 0.0) to["with_compile"] = theirs / (ours + compile);
    }
  }
  return found;
}

/// What compiling does to the inference of this project on as many threads: medians of the compiled
/// network over those of the network as given.
json compiled_over_given(const json& peers) {
  json found = json::object();
  for (const json& given : peers) {
    for (const json& compiled : peers) {
      if (given["library"] == "spdnn" && compiled["library"] == "spdnn_full" &&
          given["threads"] == compiled["threads"]) {
        found[compiled["name"].get<std::string>()] =
            compiled["median_s"].get<double>() / given["median_s"].get<double>();
      }
    }
  }
  return found;
}

/// Fails where peers differ, and says how.
void check_categories(const std::vector<std::unique_ptr<Peer>>& peers,
                      const std::vector<Runs>& runs, Comparison& comparison) {
  json differences = json::array();
  const std::vector<std::int64_t>& expected = runs.front().first.categories;
  for (std::size_t p = 0; p < peers.size(); ++p) {
    std::vector<std::int64_t> different;
    std::set_symmetric_difference(expected.begin(), expected.end(),
                                  runs[p].first.categories.begin(), runs[p].first.categories.end(),
                                  std::back_inserter(different));
    if (!different.empty()) {
      differences.push_back(fmt::format("{} and {} differ in {} images, the first with id {}",
                                        peers.front()->name(), peers[p]->name(), different.size(),
                                        different.front() + 1));
    }
    if (!runs[p].same_categories) {
      differences.push_back(peers[p]->name() + " gives other categories from run to run");
    }
    if (!runs[p].first.failure.empty()) differences.push_back(runs[p].first.failure);
  }
  comparison.agree = differences.empty();
  comparison.record["categories"] = {
      {"count", expected.size()}, {"equal", comparison.agree}, {"differences", differences}};
}

}  // namespace

Comparison compare(const Workload& workload, const std::vector<std::unique_ptr<Peer>>& peers,
                   const Repetitions& repetitions, double patience_s) {
  std::vector<Runs> runs(peers.size());
  int most = 0;
  for (const auto& peer : peers) most = std::max(most, repetitions.for_peer(*peer));
  Patience patience(patience_s);
  for (std::size_t p = 0; p < peers.size(); ++p) warm_up(*peers[p], runs[p]);
  for (int repetition = 0; repetition < most; ++repetition) {
    for (std::size_t i = 0; i < peers.size(); ++i) {
      const std::size_t p = repetition % 2 == 0 ? i : peers.size() - 1 - i;
      if (repetition >= repetitions.for_peer(*peers[p])) continue;
      add_run(*peers[p], patience, runs[p]);
    }
  }
  patience.wait_for_quiet();  // the limits are measured now
  Comparison comparison;
  json list = json::array();
  bool quiet = true;
  for (std::size_t p = 0; p < peers.size(); ++p) {
    list.push_back(describe_peer(workload, *peers[p], runs[p]));
    quiet = quiet && runs[p].quiet;
  }
  comparison.record = {{"workload", workload.name},
                       {"origin", workload.origin},
                       {"neurons", workload.images.cols()},
                       {"layers", workload.weights.size()},
                       {"images", workload.images.rows()},
                       {"bias", workload.bias},
                       {"edges_nominal", workload.nominal_edges()},
                       {"used",
                        {{"dead_images_skipped", true},
                         {"identical_images_merged", false},
                         {"compile", "off; full for spdnn_full"}}},
                       {"quiet", quiet},
                       {"ratios", ratios(list)},
                       {"compiled_over_given", compiled_over_given(list)},
                       {"peers", std::move(list)}};
  check_categories(peers, runs, comparison);
  return comparison;
}

std::string describe(const json& record) {
  std::string text = fmt::format(
      "{}: {} images, {} categories{}\n", record["workload"].get<std::string>(),
      record["images"].get<std::int64_t>(), record["categories"]["count"].get<std::int64_t>(),
      record["quiet"].get<bool>() ? "" : "; the machine was not quiet");
  for (const json& peer : record["peers"]) {
    const std::string name = peer["name"];
    text += fmt::format("  {:<14}{:9.4f} s  ±{:4.1f} %  {:.2e} nominal edges/s", name,
                        peer["median_s"].get<double>(), 50.0 * peer["spread"].get<double>(),
                        peer["nominal_edges_per_s"].get<double>());
    if (peer.contains("of_limit")) {
      text +=
          fmt::format("  {:.2e} executed, {:.2f} of the {} limit, {:.2f} of gather",
                      peer["executed_edges_per_s"].get<double>(), peer["of_limit"].get<double>(),
                      peer["limits"]["limit"].get<std::string>(), peer["of_gather"].get<double>());
    }
    if (peer.contains("edges_before_compile")) {
      text += fmt::format(
          "\n    edges {:.2e} nominal, {:.2e} executed before compiling, {:.2e} after",
          peer["edges_nominal"].get<double>(), peer["edges_before_compile"].get<double>(),
          peer["executed_edges"].get<double>());
    }
    if (record["compiled_over_given"].contains(name)) {
      text += fmt::format("  {:.3f} of the time without",
                          record["compiled_over_given"][name].get<double>());
    }
    for (const auto& [library, others] : record["ratios"].items()) {
      if (!others.contains(name)) continue;
      text +=
          fmt::format("  {} is {:.1f}× as fast", library, others[name]["inference"].get<double>());
      if (others[name].contains("with_compile")) {
        text += fmt::format(" ({:.1f}× with compile)", others[name]["with_compile"].get<double>());
      }
    }
    text += '\n';
  }
  for (const json& difference : record["categories"]["differences"]) {
    text += "  WRONG: " + difference.get<std::string>() + '\n';
  }
  return text;
}

}  // namespace spdnn::bench
