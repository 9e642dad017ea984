// spdnn-gpu simulate: how long a step takes on more ranks than there are.
#include "spdnn/simulate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "partition_models.hpp"
#include "spdnn/config.hpp"
#include "spdnn/report.hpp"
#include "stopwatch.hpp"

namespace spdnn {
namespace {

using Json = nlohmann::ordered_json;

struct Options : PartitionOptions {
  std::vector<std::int64_t> batches = {64};
  bool overlap = false;
  Cluster cluster{1, 16, {}, {2e-6, 1e-6, 8e9}, {5e-6, 2e-6, 10e9}};
  std::vector<double> process, node, network;
};

/// One line of the table.
struct Row {
  std::string model;
  int ranks = 0;
  std::int64_t batch = 0;
  std::int64_t words = 0, messages = 0, max_sent = 0, max_received = 0;
  double imbalance = 0.0;
  Elapsed elapsed;  ///< of the search for the partition
  StepCost cost;
  StepTime inference, training;
};

void set_link(LinkClass& link, const std::vector<double>& given, const char* option) {
  if (given.empty()) return;
  if (given.size() != 3 || std::any_of(given.begin(), given.end(),
                                       [](double x) { return !std::isfinite(x) || x < 0; })) {
    throw InputError(fmt::format(
        "{}: give three numbers from 0 on: seconds of latency, seconds a message, bytes a second",
        option));
  }
  link = {given[0], given[1], given[2]};
}

Cluster cluster_of(const Options& options) {
  Cluster cluster = options.cluster;
  set_link(cluster.process, options.process, "--process-link");
  set_link(cluster.node, options.node, "--node-link");
  set_link(cluster.network, options.network, "--network-link");
  if (cluster.ranks_per_process < 1 || cluster.ranks_per_node < cluster.ranks_per_process ||
      cluster.ranks_per_node % cluster.ranks_per_process != 0) {
    throw InputError(
        fmt::format("{} ranks a node and {} a process; give 1 or more, whole processes to a node",
                    cluster.ranks_per_node, cluster.ranks_per_process));
  }
  return cluster;
}

std::string link_text(const char* name, const LinkClass& link) {
  if (link.latency_s == 0 && link.message_s == 0 && link.bytes_per_s == 0) {
    return fmt::format("  {}: nothing travels\n", name);
  }
  return fmt::format("  {}: latency {:.3g} s, {:.3g} s a message, {:.3g} bytes/s\n", name,
                     link.latency_s, link.message_s, link.bytes_per_s);
}

std::string table(const std::vector<Row>& rows) {
  std::string text = fmt::format("{:<11}{:>6}{:>6}{:>12}{:>11}{:>11}{:>11}{:>11}{:>11}{:>9}\n",
                                 "model", "ranks", "batch", "words", "messages", "infer s",
                                 "train s", "compute s", "exchange s", "speed-up");
  for (const Row& row : rows) {
    const Row& first = *std::find_if(rows.begin(), rows.end(), [&](const Row& r) {
      return r.model == row.model && r.batch == row.batch;
    });
    text +=
        fmt::format("{:<11}{:>6}{:>6}{:>12}{:>11}{:>11.3e}{:>11.3e}{:>11.3e}{:>11.3e}{:>9.2f}\n",
                    row.model, row.ranks, row.batch, row.words, row.messages, row.inference.seconds,
                    row.training.seconds, row.training.compute_s, row.training.exchange_s,
                    first.training.seconds / row.training.seconds);
  }
  return text;
}

Json json_of(const StepTime& time) {
  return {
      {"seconds", time.seconds}, {"compute_s", time.compute_s}, {"exchange_s", time.exchange_s}};
}

Json json_of(const LinkClass& link) {
  return {{"latency_s", link.latency_s},
          {"message_s", link.message_s},
          {"bytes_per_s", link.bytes_per_s}};
}

Json json_of(const StepCost& cost) {
  Json json;
  for (const auto& [name, seconds] : named_seconds(cost)) json[name] = seconds;
  return json;
}

Json json_of(const Options& options, const Cluster& cluster, const Model& model,
             const std::vector<Row>& rows) {
  Json list = Json::array();
  for (const Row& row : rows) {
    list.push_back({{"model", row.model},
                    {"ranks", row.ranks},
                    {"batch", row.batch},
                    {"words", row.words},
                    {"messages", row.messages},
                    {"max_sent", row.max_sent},
                    {"max_received", row.max_received},
                    {"imbalance", row.imbalance},
                    {"partition_seconds", row.elapsed.seconds},
                    {"partition_cpu_seconds", row.elapsed.cpu_seconds},
                    {"measured", json_of(row.cost)},
                    {"inference", json_of(row.inference)},
                    {"training", json_of(row.training)}});
  }
  return {{"name", model.name},
          {"layers", model.layers.size()},
          {"nonzeros", model.edges()},
          {"imbalance_allowed", options.request.imbalance},
          {"seed", options.request.seed},
          {"effort", options.request.effort},
          {"searches", options.request.searches},
          {"overlap", options.overlap},
          {"ranks_per_process", cluster.ranks_per_process},
          {"ranks_per_node", cluster.ranks_per_node},
          {"links",
           {{"process", json_of(cluster.process)},
            {"node", json_of(cluster.node)},
            {"network", json_of(cluster.network)}}},
          {"steps", std::move(list)}};
}

Chart chart_of(const Model& model, const std::vector<Row>& rows) {
  Chart chart{"Modelled seconds of a training step: " + model.name, "ranks", "seconds", {}};
  for (const Row& row : rows) {
    const std::string name = fmt::format("{}, batch {}", row.model, row.batch);
    auto at = std::find_if(chart.series.begin(), chart.series.end(),
                           [&](const ChartSeries& series) { return series.name == name; });
    if (at == chart.series.end()) at = chart.series.insert(at, {name, {}});
    at->points.emplace_back(row.ranks, row.training.seconds);
  }
  return chart;
}

/// What exchanges of so many ranks of this machine take, each measured once.
class Exchanges {
 public:
  [[nodiscard]] const ExchangeCost& of(int ranks, std::int64_t batch) {
    const auto [at, is_new] = known_.try_emplace({ranks, batch});
    if (is_new) at->second = measure_exchange_cost(ranks, batch);
    return at->second;
  }

 private:
  std::map<std::pair<int, std::int64_t>, ExchangeCost> known_;
};

/// The steps of one partition, a row for each batch.
void add_rows(const Model& model, const std::string& name, const HypergraphRequest& request,
              const Options& options, const Cluster& cluster, Exchanges& exchanges,
              std::vector<Row>& rows) {
  const Stopwatch watch;
  const Partition partition = make_partition(name, model, request);
  const Elapsed elapsed = watch.elapsed();
  const Traffic traffic = count_traffic(model, partition);
  const int at_once = static_cast<int>(std::min(
      {std::int64_t{partition.parts()}, cluster.ranks_per_node, std::ssize(usable_cores())}));
  for (const std::int64_t batch : options.batches) {
    const StepCost cost =
        measure_step_cost(model, partition, batch, at_once, exchanges.of(at_once, batch));
    rows.push_back({name, partition.parts(), batch, traffic.words, traffic.messages,
                    traffic.max_sent, traffic.max_received, imbalance(traffic), elapsed, cost,
                    simulate_step(partition, traffic, cost, cluster, {false, options.overlap}),
                    simulate_step(partition, traffic, cost, cluster, {true, options.overlap})});
  }
}

ExitStatus simulate_command(const Options& options) {
  check_partition_models(options.models);
  const std::vector<HypergraphRequest> requests = requests_of(options);
  const Cluster cluster = cluster_of(options);
  check_outputs({options.chart});
  const Model model = network_of(options);
  Exchanges exchanges;
  std::vector<Row> rows;
  Progress progress;
  progress.phase = "measuring";
  progress.unit = "partitions/s";
  progress.total = std::ssize(requests) * std::ssize(options.models);
  {
    const ProgressPrinter printer(progress, stderr, options.json);
    for (const std::string& name : options.models) {
      for (const HypergraphRequest& request : requests) {
        add_rows(model, name, request, options, cluster, exchanges, rows);
        ++progress.done;
      }
    }
  }
  if (!options.chart.empty())
    write_file_atomically(options.chart, chart_svg(chart_of(model, rows)));
  if (options.json) {
    const Json json = json_of(options, cluster, model, rows);
    print(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
    return ExitStatus::done;
  }
  print(
      fmt::format("{}: {} layers; steps from kernels and exchanges of CPU threads as measured and "
                  "these links:\n",
                  model.name, model.layers.size()) +
      link_text("within a process", cluster.process) + link_text("within a node", cluster.node) +
      link_text("between nodes", cluster.network) + table(rows) +
      fmt::format("speed-up: of training, over {} rank{}\n", options.parts.front(),
                  options.parts.front() == 1 ? "" : "s"));
  if (!options.chart.empty()) print(fmt::format("written: {}\n", options.chart.string()));
  return ExitStatus::done;
}

void add_link(CLI::App& command, const char* option, std::vector<double>& link, const char* about) {
  command.add_option(option, link, about)->delimiter(',')->type_name("LATENCY,MESSAGE,BYTES/S");
}

}  // namespace

void add_simulate(CLI::App& app, CommandLine& line) {
  CLI::App* command = app.add_subcommand(
      "simulate",
      "Model the time of a step on many ranks, from measured kernels and exact volumes");
  const auto options = std::make_shared<Options>();
  options->parts = {1, 2, 4, 8, 16, 32, 64};
  options->models = {"block", "hypergraph"};
  add_partition_options(*command, *options);
  command->add_option("--batch", options->batches, "Images of a step, with commas between")
      ->delimiter(',')
      ->type_name("N,…")
      ->capture_default_str();
  command->add_flag("--overlap", options->overlap, "Exchanges run beside the compute");
  command->add_option("--ranks-per-process", options->cluster.ranks_per_process, "Ranks a process")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--ranks-per-node", options->cluster.ranks_per_node, "Ranks a node")
      ->type_name("N")
      ->capture_default_str();
  add_link(*command, "--process-link", options->process,
           "Declared link between ranks of a process; else their memory");
  add_link(*command, "--node-link", options->node, "Link between processes of a node");
  add_link(*command, "--network-link", options->network, "Link between nodes");
  command->footer(
      "Example:\n  spdnn-gpu simulate configs/quickstart.json --parts 1,4,16,64 --chart steps.svg");
  command->callback(
      [options, &line] { line.action = [options] { return simulate_command(*options); }; });
}

}  // namespace spdnn
