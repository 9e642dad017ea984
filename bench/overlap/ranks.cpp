// bench_ranks: a training step on a few ranks of this process, rows divided in several ways, beside
// the time that `simulate` gives it: from kernels and exchanges measured in the same call, with a
// declared link between the ranks and without.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "spdnn/io.hpp"
#include "spdnn/partition.hpp"
#include "spdnn/simulate.hpp"
#include "step.hpp"
#include "support/record.hpp"

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
  std::string output;
};

/// A generated network as partitions and as training see it.
struct Network {
  Model model;
  std::vector<TrainLayer> layers;
};

Network radix_network(const Options& options) {
  RadixNetSpec spec;
  spec.neurons = options.neurons;
  spec.layers = options.layers;
  Network network;
  for (std::int64_t l = 0; l < spec.layers; ++l) {
    Csr matrix = radixnet_layer(spec, l);
    const CsrView& view = matrix.view();
    std::vector<std::int64_t> offsets;
    std::vector<std::uint32_t> indices;
    for (std::int64_t row = 0; row <= view.rows; ++row) offsets.push_back(view.row_begin(row));
    for (std::int64_t k = 0; k < view.nnz; ++k) {
      indices.push_back(static_cast<std::uint32_t>(view.col(k)));
    }
    network.layers.push_back(
        linear_layer(Pattern(view.rows, view.cols, std::move(offsets), std::move(indices)),
                     {0.0F, std::numeric_limits<float>::infinity()}));
    network.model.layers.push_back(SparseLinear{std::move(matrix), {0.0F}, {}});
  }
  return network;
}

struct Division {
  std::string name;
  Partition partition;
};

std::vector<Division> divide(const Model& model, int ranks, double effort) {
  if (ranks == 1) return {{"one rank", block_partition(model, 1)}};
  HypergraphRequest request;
  request.speeds.assign(static_cast<std::size_t>(ranks), 1.0);
  request.effort = effort;
  request.searches = 1;
  return {{"random", random_partition(model, ranks, 1)},
          {"block", block_partition(model, ranks)},
          {"cyclic", cyclic_partition(model, ranks)},
          {"hypergraph", hypergraph_partition(model, request)}};
}

std::vector<double> measure(const Options& options, const Network& network,
                            const Partition& partition, std::int64_t batch, const Link& link) {
  std::vector<double> seconds;
  run_ranks(
      partition.parts(),
      [&](Communicator& comm) {
        const auto device = open_device(device_of(comm));
        const auto stream = device->make_stream();
        Step step(network.layers, partition.layers, batch, comm, train_kernels<float>().front(),
                  *device, *stream);
        for (int turn = 0; turn <= options.turns; ++turn) {
          const double took = step.time().seconds;
          if (comm.rank() == 0 && turn > 0) seconds.push_back(took);  // the first warms up
        }
      },
      link);
  return seconds;
}

/// One step, measured and predicted.
json compare(const Options& options, const Network& network, const Division& division,
             const StepCost& cost, bool declared) {
  const Link link = declared ? options.link : Link{};
  const int ranks = division.partition.parts();
  Cluster cluster;
  cluster.ranks_per_process = cluster.ranks_per_node = ranks;
  cluster.process = {link.latency_s, 0.0, link.bytes_per_s};
  const Traffic traffic = count_traffic(network.model, division.partition);
  const StepTime predicted =
      simulate_step(division.partition, traffic, cost, cluster, {true, true});
  const OtherLoad others;
  const auto seconds = measure(options, network, division.partition, cost.batch, link);
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
          {"predicted_over_measured", predicted.seconds / median},
          {"other_cores", others.cores()}};
}

json run(const Options& options, const std::vector<std::string>& command) {
  const Network network = radix_network(options);
  json result{{"conditions", describe_conditions(command)},
              {"neurons", options.neurons},
              {"layers", options.layers},
              {"declared_link",
               {{"latency_s", options.link.latency_s}, {"bytes_per_s", options.link.bytes_per_s}}}};
  for (const int ranks : options.ranks) {
    std::vector<StepCost> costs;
    for (const std::int64_t batch : options.batches) {
      costs.push_back(measure_step_cost(DeviceSpec{}, batch, ranks));
    }
    for (const Division& division : divide(network.model, ranks, options.effort)) {
      for (const StepCost& cost : costs) {
        for (const bool declared : {false, true}) {
          if (declared && ranks == 1) continue;
          result["cases"].push_back(compare(options, network, division, cost, declared));
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
