// bench_overlap: how much of the exchanges of a training step with divided rows is hidden behind
// its work. The same step on the same ranks is timed whole, with the exchanges off, and with the
// work off, in turn in one call, over declared links of several speeds.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>
#include <numeric>

#include "batch_pass.hpp"
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

/// A group whose exchanges do nothing: what a step computes, without what it sends.
class Silent final : public Communicator {
 public:
  explicit Silent(Communicator& group) : group_(group) {}
  [[nodiscard]] int rank() const override { return group_.rank(); }
  [[nodiscard]] int size() const override { return group_.size(); }
  void barrier() override { group_.barrier(); }
  void all_gather(const void* send, void* receive, std::span<const std::int64_t> counts, DType type,
                  Stream* stream) override {
    group_.all_gather(send, receive, counts, type, stream);
  }
  void all_reduce(const void* send, void* receive, std::int64_t count, DType type,
                  Reduction reduction, Stream* stream) override {
    group_.all_reduce(send, receive, count, type, reduction, stream);
  }
  void reduce_scatter(const void* send, void* receive, std::span<const std::int64_t> counts,
                      DType type, Reduction reduction, Stream* stream) override {
    group_.reduce_scatter(send, receive, counts, type, reduction, stream);
  }
  void exchange(std::span<const Message> sends, std::span<const Message> receives,
                Stream* stream) override {
    group_.exchange(sends, receives, stream);
  }
  [[nodiscard]] std::unique_ptr<Pending> start_exchange(std::span<const Message> /*sends*/,
                                                        std::span<const Message> /*receives*/,
                                                        Stream* /*stream*/) override {
    class Nothing final : public Pending {
      void finish() override {}
    };
    return std::make_unique<Nothing>();
  }
  [[nodiscard]] std::unique_ptr<Communicator> split(int color, int key) override {
    return group_.split(color, key);
  }
  void abort(const std::string& reason) override { group_.abort(reason); }
  [[nodiscard]] std::int64_t bytes_sent() const override { return group_.bytes_sent(); }

 private:
  Communicator& group_;
};

/// Kernels that do nothing: what a step sends, without what it computes.
TrainKernels<float> idle_kernels() {
  TrainKernels<float> idle = train_kernels<float>().front();
  const LinearKernels<float> nothing = {[](const ForwardArgs<float>&, Stream&) {},
                                        [](const BackwardDataArgs<float>&, Stream&) {},
                                        [](const BackwardWeightsArgs<float>&, Stream&) {}};
  idle.sparse = idle.dense = nothing;
  idle.loss = [](const LossArgs<float>&, Stream&) {};
  idle.update = [](const UpdateArgs<float>&, Stream&) {};
  return idle;
}

std::vector<TrainLayer> random_layers(const Options& options) {
  std::vector<TrainLayer> layers;
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
      std::sort(cols.begin(), cols.end());
      indices.insert(indices.end(), cols.begin(), cols.end());
      offsets.push_back(std::ssize(indices));
    }
    layers.push_back(linear_layer(
        Pattern(options.neurons, options.neurons, std::move(offsets), std::move(indices)),
        {0.0F, std::numeric_limits<float>::infinity()}));
  }
  return layers;
}

/// One rank's step, with or without work, over a group with or without exchanges.
class Step {
 public:
  Step(const Options& options, const std::vector<TrainLayer>& layers, Communicator& comm,
       const TrainKernels<float>& kernels, Device& device, Stream& stream)
      : options_(options), comm_(comm), stream_(stream) {
    const std::vector<double> even(static_cast<std::size_t>(comm.size()), 1.0);
    const std::vector<LayerPartition> partition = split_units(layers, even);
    std::vector<Pattern> rows;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      const auto own = part_of(partition[l], comm.rank());
      rows.push_back(layers[l].pattern.slice_rows({own.front(), own.back() + 1}));
    }
    shard_ = make_shard(comm, layers, partition, rows);
    network_.emplace(std::move(shard_.layers), kernels, device, stream);
    network_->initialize(1);
    stream.zero(network_->gradient(),
                static_cast<std::size_t>(network_->parameter_count()) * sizeof(float));
    pass_.emplace(*network_, shard_, comm, options.batch);
    const Panels<float> room = {nullptr, options.neurons, options.batch, pass_->width(), nullptr};
    x_.assign(static_cast<std::size_t>(room.size()), 0.25F);
    labels_.resize(static_cast<std::size_t>(options.batch));
  }
  void run() {
    static_cast<void>(
        pass_->forward({x_.data(), options_.neurons, options_.batch, pass_->width(), nullptr}));
    static_cast<void>(pass_->loss(Loss::cross_entropy, labels_.data(),
                                  1.0F / static_cast<float>(options_.batch), nullptr));
    pass_->backward();
    UpdateArgs<float> update;
    update.count = network_->parameter_count();
    update.parameters = network_->parameters();
    update.gradient = network_->gradient();
    update.rate = 1e-6F;
    network_->kernels().update(update, stream_);
  }
  /// Until the last rank is done; and what the ranks' threads computed, on average. Where a step
  /// computes more than the same step without exchanges, no overlap can hide it.
  struct Took {
    double seconds = 0.0, cpu_s = 0.0;
  };
  Took time() {
    comm_.barrier();
    const double start = now_seconds();
    const double cpu = thread_cpu_seconds();
    run();
    Took took = {now_seconds() - start, thread_cpu_seconds() - cpu};
    comm_.all_reduce(&took.seconds, &took.seconds, 1, DType::f64, Reduction::max, nullptr);
    comm_.all_reduce(&took.cpu_s, &took.cpu_s, 1, DType::f64, Reduction::sum, nullptr);
    took.cpu_s /= comm_.size();
    return took;
  }
  /// Bytes that the busiest rank sends in a step.
  std::int64_t bytes() {
    const std::int64_t before = comm_.bytes_sent();
    run();
    std::int64_t sent = comm_.bytes_sent() - before;
    comm_.all_reduce(&sent, &sent, 1, DType::i64, Reduction::max, nullptr);
    return sent;
  }

 private:
  const Options& options_;
  Communicator& comm_;
  Stream& stream_;
  Shard shard_;
  std::optional<Network<float>> network_;
  std::optional<BatchPass<float>> pass_;
  std::vector<float> x_;
  std::vector<std::int32_t> labels_;
};

struct Times {
  std::vector<double> step, compute, exchange;
  std::vector<double> step_cpu, compute_cpu;
  std::int64_t bytes = 0;
};

Times measure(const Options& options, const std::vector<TrainLayer>& layers, const Link& link,
              int turns) {
  Times times;
  const TrainKernels<float> idle = idle_kernels();
  run_ranks(
      options.ranks,
      [&](Communicator& comm) {
        const auto device = open_device({});
        const auto stream = device->make_stream();
        Silent silent(comm);
        const TrainKernels<float>& kernels = train_kernels<float>().front();
        Step whole(options, layers, comm, kernels, *device, *stream);
        Step compute(options, layers, silent, kernels, *device, *stream);
        Step exchange(options, layers, comm, idle, *device, *stream);
        const std::int64_t bytes = whole.bytes();
        for (int turn = 0; turn <= turns; ++turn) {
          const Step::Took took[] = {whole.time(), compute.time(), exchange.time()};
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

json run_ratio(const Options& options, const std::vector<TrainLayer>& layers, double ratio,
               const Times& free_link) {
  // The bytes take so many times as long as the work does.
  const Link link = {options.latency_s,
                     static_cast<double>(free_link.bytes) / ratio / median_of(free_link.compute)};
  const OtherLoad others;
  const Times times = measure(options, layers, link, options.turns);
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
    const std::vector<TrainLayer> layers = random_layers(options);
    const Times free_link = measure(options, layers, {}, options.turns);
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
      result["cases"].push_back(run_ratio(options, layers, ratio, free_link));
    }
    if (!options.output.empty()) write_file_atomically(options.output, result.dump(1) + "\n");
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_overlap: {}\n", error.what());
    return 3;
  }
}
