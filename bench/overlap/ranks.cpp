// bench_ranks: a training step on a few ranks of this process, rows divided in several ways, beside
// the time that `simulate` gives it: from kernels and exchanges measured in the same call, with a
// declared link between the ranks and without.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <limits>

#include "spdnn/io.hpp"
#include "spdnn/partition.hpp"
#include "spdnn/simulate.hpp"
#include "support/record.hpp"
#include "trial_step.hpp"

namespace {

using namespace spdnn;
using namespace spdnn::bench;
using namespace spdnn::train;
using nlohmann::json;

struct Options {
  std::int64_t neurons = 1024, layers = 120;
  std::vector<std::int64_t> batches{1, 64};
  std::vector<int> ranks{1, 2, 4};
  int turns = 5;
  double effort = 0.25;
  Link link{200e-6, 1e9};
  std::string partitions;
  std::string output;
};

Model radix_network(const Options& options) {
  RadixNetSpec spec;
  spec.neurons = options.neurons;
  spec.layers = options.layers;
  Model model;
  for (std::int64_t l = 0; l < spec.layers; ++l) {
    model.layers.push_back(SparseLinear{radixnet_layer(spec, l), {0.0F}, {}});
  }
  return model;
}

struct Division {
  std::string name;
  Partition partition;
};

/// What a search finds, or found before and kept in a file.
Partition searched(const Options& options, const Model& model, int ranks) {
  const std::filesystem::path file =
      std::filesystem::path(options.partitions) /
      fmt::format("{}x{}-{}.part", options.neurons, options.layers, ranks);
  if (!options.partitions.empty() && std::filesystem::exists(file)) {
    return read_partition(file, model, ranks);
  }
  HypergraphRequest request;
  request.speeds.assign(static_cast<std::size_t>(ranks), 1.0);
  request.effort = options.effort;
  request.searches = 1;
  Partition partition = hypergraph_partition(model, request);
  if (!options.partitions.empty()) write_partition(file, partition);
  return partition;
}

std::vector<Division> divide(const Options& options, const Model& model, int ranks) {
  if (ranks == 1) return {{"one rank", block_partition(model, 1)}};
  return {{"random", random_partition(model, ranks, 1)},
          {"block", block_partition(model, ranks)},
          {"cyclic", cyclic_partition(model, ranks)},
          {"hypergraph", searched(options, model, ranks)}};
}

std::vector<double> measure(const Options& options, const Model& model, const Partition& partition,
                            std::int64_t batch, const Link& link) {
  const std::vector<CsrView> weights = partitioned_weights(model);
  const Epilogue relu{0.0F, std::numeric_limits<float>::infinity()};
  std::vector<double> seconds;
  run_ranks(
      partition.parts(),
      [&](Communicator& comm) {
        const auto device = open_device(core_of(comm));
        const auto stream = device->make_stream();
        TrialStep step(shard_of(weights, partition.layers, relu, comm.rank()), batch, comm,
                       cpu_kernels(), *device, *stream);
        for (int turn = 0; turn <= options.turns; ++turn) {
          comm.barrier();
          const double start = now_seconds();
          step.run();
          double took = now_seconds() - start;
          comm.all_reduce(&took, &took, 1, DType::f64, Reduction::max, nullptr);
          if (comm.rank() == 0 && turn > 0) seconds.push_back(took);  // the first warms up
        }
      },
      link);
  return seconds;
}

/// One step, measured and predicted.
json json_of(const StepCost& cost) {
  json numbers;
  for (const auto& [name, seconds] : named_seconds(cost)) numbers[name] = seconds;
  return numbers;
}

json compare(const Options& options, const Model& model, const Division& division,
             const StepCost& cost, bool declared) {
  const Link link = declared ? options.link : Link{};
  const int ranks = division.partition.parts();
  Cluster cluster;
  cluster.ranks_per_process = cluster.ranks_per_node = ranks;
  cluster.process = {link.latency_s, 0.0, link.bytes_per_s};
  const Traffic traffic = count_traffic(model, division.partition);
  const StepTime predicted =
      simulate_step(division.partition, traffic, cost, cluster, {true, true});
  const OtherLoad others;
  const auto seconds = measure(options, model, division.partition, cost.batch, link);
  const double median = median_of(seconds);
  fmt::print(
      "{:>2} ranks, batch {:>3}, {:<10} {:<12} measured {:>9.3f} ms, predicted {:>9.3f} ms, "
      "{:.2f} of it\n",
      ranks, cost.batch, division.name, declared ? "over a link" : "", 1e3 * median,
      1e3 * predicted.seconds, predicted.seconds / median);
  std::fflush(stdout);
  return {{"ranks", ranks},
          {"model", division.name},
          {"batch", cost.batch},
          {"declared_link", declared},
          {"words", traffic.words},
          {"step", summarize(seconds)},
          {"predicted_s", predicted.seconds},
          {"predicted_compute_s", predicted.compute_s},
          {"predicted_exchange_s", predicted.exchange_s},
          {"cost", json_of(cost)},
          {"predicted_over_measured", predicted.seconds / median},
          {"other_cores", others.cores()}};
}

json run(const Options& options, const std::vector<std::string>& command) {
  const Model model = radix_network(options);
  json result{{"conditions", describe_conditions(command)},
              {"neurons", options.neurons},
              {"layers", options.layers},
              {"declared_link",
               {{"latency_s", options.link.latency_s}, {"bytes_per_s", options.link.bytes_per_s}}}};
  for (const int ranks : options.ranks) {
    const std::vector<Division> divisions = divide(options, model, ranks);
    for (const std::int64_t batch : options.batches) {
      const ExchangeCost exchange = measure_exchange_cost(ranks, batch);
      for (const Division& division : divisions) {
        const StepCost cost = measure_step_cost(model, division.partition, batch, ranks, exchange);
        for (const bool declared : {false, true}) {
          if (declared && ranks == 1) continue;
          result["cases"].push_back(compare(options, model, division, cost, declared));
        }
      }
    }
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Training steps on a few ranks, measured and simulated");
  app.add_option("--neurons", options.neurons, "Of every layer")->capture_default_str();
  app.add_option("--layers", options.layers, "Layers")->capture_default_str();
  app.add_option("--batch", options.batches, "Images of a step")->capture_default_str();
  app.add_option("--ranks", options.ranks, "Ranks that share the rows")->capture_default_str();
  app.add_option("--turns", options.turns, "Steps of each kind")->capture_default_str();
  app.add_option("--effort", options.effort, "Of the search for a partition, relative")
      ->capture_default_str();
  app.add_option("--latency", options.link.latency_s, "Of the declared link, seconds")
      ->capture_default_str();
  app.add_option("--bytes-per-s", options.link.bytes_per_s, "Of the declared link")
      ->capture_default_str();
  app.add_option("--partitions", options.partitions,
                 "Folder that keeps what searches find, for the next time");
  app.add_option("--output", options.output, "Result file");
  CLI11_PARSE(app, argc, argv);
  try {
    const json result = run(options, {argv, argv + argc});
    if (!options.output.empty()) write_file_atomically(options.output, result.dump(1) + "\n");
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_ranks: {}\n", error.what());
    return 3;
  }
}
