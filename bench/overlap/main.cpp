// bench_overlap: how much of the exchanges of a training step with divided rows is hidden behind
// its work. The same step on the same ranks is timed whole, with the exchanges off, and with the
// work off, in turn in one call, over declared links of several speeds.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>

#include "halves.hpp"
#include "spdnn/io.hpp"
#include "spdnn/random.hpp"
#include "support/record.hpp"

namespace {

using namespace spdnn;
using namespace spdnn::bench;
using namespace spdnn::train;
using nlohmann::json;

struct Options {
  std::int64_t neurons = 4096, layers = 12, per_row = 32, batch = 256;
  int ranks = 4;
  int turns = 15;
  double latency_s = 20e-6;
  std::vector<double> ratios{0.5, 0.8, 1.25, 2.0};
  std::string output;
};

Model random_network(const Options& options) {
  Model model;
  for (std::int64_t l = 0; l < options.layers; ++l) {
    Random random(7, static_cast<std::uint64_t>(l));
    std::vector<std::int64_t> offsets = {0};
    std::vector<std::uint32_t> indices;
    for (std::int64_t row = 0; row < options.neurons; ++row) {
      std::vector<std::uint32_t> cols;
      while (std::ssize(cols) < options.per_row) {
        const auto col = random.below(static_cast<std::uint32_t>(options.neurons));
        if (std::find(cols.begin(), cols.end(), col) == cols.end()) cols.push_back(col);
      }
      indices.insert(indices.end(), cols.begin(), cols.end());
      offsets.push_back(std::ssize(indices));
    }
    Csr matrix =
        make_csr(options.neurons, options.neurons, std::move(offsets), std::move(indices), {1.0F});
    model.layers.push_back(SparseLinear{std::move(matrix), {0.0F}, {}});
  }
  return model;
}

struct Took {
  double seconds = 0.0, cpu_s = 0.0;
};

/// A step until the last rank is done; and what the ranks' threads computed, on average. Where a
/// step computes more than the same step without exchanges, no overlap can hide it.
Took time_step(Communicator& comm, TrialStep& step) {
  comm.barrier();
  const double start = now_seconds();
  const double cpu = thread_cpu_seconds();
  step.run();
  Took took = {now_seconds() - start, thread_cpu_seconds() - cpu};
  comm.all_reduce(&took.seconds, &took.seconds, 1, DType::f64, Reduction::max, nullptr);
  comm.all_reduce(&took.cpu_s, &took.cpu_s, 1, DType::f64, Reduction::sum, nullptr);
  took.cpu_s /= comm.size();
  return took;
}

/// Bytes that the busiest rank sends in a step.
std::int64_t bytes_of_step(Communicator& comm, TrialStep& step) {
  const std::int64_t before = comm.bytes_sent();
  step.run();
  std::int64_t sent = comm.bytes_sent() - before;
  comm.all_reduce(&sent, &sent, 1, DType::i64, Reduction::max, nullptr);
  return sent;
}

struct Times {
  std::vector<double> step, compute, exchange;
  std::vector<double> step_cpu, compute_cpu;
  std::int64_t bytes = 0;
};

Times measure(const Options& options, const Model& model, const Link& link, int turns) {
  Times times;
  const TrainKernels<float> idle = idle_kernels();
  const Partition partition = block_partition(model, options.ranks);
  const std::vector<CsrView> weights = partitioned_weights(model);
  const Epilogue relu{0.0F, std::numeric_limits<float>::infinity()};
  run_ranks(
      options.ranks,
      [&](Communicator& comm) {
        const auto device = open_device(core_of(comm));
        const auto stream = device->make_stream();
        Silent silent(comm);
        const auto make = [&](Communicator& group, const TrainKernels<float>& kernels) {
          return TrialStep(shard_of(weights, partition.layers, relu, comm.rank()), options.batch,
                           group, kernels, *device, *stream);
        };
        TrialStep whole = make(comm, cpu_kernels());
        TrialStep compute = make(silent, cpu_kernels());
        TrialStep exchange = make(comm, idle);
        const std::int64_t bytes = bytes_of_step(comm, whole);
        for (int turn = 0; turn <= turns; ++turn) {
          const Took took[] = {time_step(comm, whole), time_step(comm, compute),
                               time_step(comm, exchange)};
          if (comm.rank() != 0 || turn == 0) continue;  // the first warms up
          times.step.push_back(took[0].seconds);
          times.compute.push_back(took[1].seconds);
          times.exchange.push_back(took[2].seconds);
          times.step_cpu.push_back(took[0].cpu_s);
          times.compute_cpu.push_back(took[1].cpu_s);
          times.bytes = bytes;
        }
      },
      link);
  return times;
}

json run_ratio(const Options& options, const Model& model, double ratio, const Times& free_link) {
  // The bytes take so many times as long as the work does.
  const Link link = {options.latency_s,
                     static_cast<double>(free_link.bytes) / ratio / median_of(free_link.compute)};
  const OtherLoad others;
  const Times times = measure(options, model, link, options.turns);
  std::vector<double> ratios;
  for (std::size_t i = 0; i < times.step.size(); ++i) {
    ratios.push_back(times.step[i] / std::max(times.compute[i], times.exchange[i]));
  }
  json record{{"asked_ratio", ratio},
              {"latency_s", link.latency_s},
              {"bytes_per_s", link.bytes_per_s},
              {"bytes", times.bytes},
              {"step", summarize(times.step)},
              {"compute", summarize(times.compute)},
              {"exchange", summarize(times.exchange)},
              {"step_cpu", summarize(times.step_cpu)},
              {"compute_cpu", summarize(times.compute_cpu)},
              {"step_over_longer", median_of(ratios)},
              {"other_cores", others.cores()}};
  fmt::print(
      "exchange {:.2f} of compute: step {:.2f} ms, compute {:.2f} ms, exchange {:.2f} ms, "
      "{:.3f} of the longer\n",
      median_of(times.exchange) / median_of(times.compute), 1e3 * median_of(times.step),
      1e3 * median_of(times.compute), 1e3 * median_of(times.exchange), median_of(ratios));
  std::fflush(stdout);
  return record;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("How much of a training step's exchanges its work hides");
  app.add_option("--neurons", options.neurons, "Of every layer")->capture_default_str();
  app.add_option("--layers", options.layers, "Layers")->capture_default_str();
  app.add_option("--per-row", options.per_row, "Connections of a neuron")->capture_default_str();
  app.add_option("--batch", options.batch, "Images of a step")->capture_default_str();
  app.add_option("--ranks", options.ranks, "Ranks that share the rows")->capture_default_str();
  app.add_option("--turns", options.turns, "Steps of each kind")->capture_default_str();
  app.add_option("--latency", options.latency_s, "Of the links, seconds")->capture_default_str();
  app.add_option("--ratio", options.ratios, "Exchange over compute")->capture_default_str();
  app.add_option("--output", options.output, "Result file");
  CLI11_PARSE(app, argc, argv);
  try {
    const Model model = random_network(options);
    const Times free_link = measure(options, model, {}, options.turns);
    json result{{"conditions", describe_conditions({argv, argv + argc})},
                {"neurons", options.neurons},
                {"layers", options.layers},
                {"batch", options.batch},
                {"ranks", options.ranks},
                {"no_link",
                 {{"step", summarize(free_link.step)},
                  {"compute", summarize(free_link.compute)},
                  {"exchange", summarize(free_link.exchange)},
                  {"step_cpu", summarize(free_link.step_cpu)},
                  {"compute_cpu", summarize(free_link.compute_cpu)}}}};
    fmt::print(
        "no link: step {:.2f} ms, compute {:.2f} ms, exchange {:.2f} ms; CPU of a rank {:.2f} ms "
        "in a step, {:.2f} ms without exchanges\n",
        1e3 * median_of(free_link.step), 1e3 * median_of(free_link.compute),
        1e3 * median_of(free_link.exchange), 1e3 * median_of(free_link.step_cpu),
        1e3 * median_of(free_link.compute_cpu));
    for (const double ratio : options.ratios) {
      result["cases"].push_back(run_ratio(options, model, ratio, free_link));
    }
    if (!options.output.empty()) write_file_atomically(options.output, result.dump(1) + "\n");
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_overlap: {}\n", error.what());
    return 3;
  }
}
