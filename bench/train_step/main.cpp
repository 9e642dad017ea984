// bench_train_step: one training step of this project beside dense masked and sparse libraries, in
// turn in one call, with weights that must agree.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <csignal>
#include <thread>

#include "spdnn/device.hpp"
#include "spdnn/io.hpp"
#include "support/record.hpp"
#include "train_step/step.hpp"

namespace {

using namespace spdnn;
using namespace spdnn::bench;
using nlohmann::json;

struct Options {
  std::vector<std::int64_t> widths{1024, 2048, 4096};
  std::vector<std::int64_t> batches{64, 256, 1024};
  std::vector<double> sparsities{0.90, 0.95, 0.98};
  int threads = 2;
  int turns = 5;
  double turn_s = 0.15;
  std::string python = "/usr/bin/python3";
  std::string output;
};

/// Between two peers, so that the threads of the last one have gone to sleep.
constexpr auto kPause = std::chrono::milliseconds(100);
/// Steps after which weights are compared.
constexpr int kCheckedSteps = 2;

/// The norm of the weights' differences from the first peer's, relative to that of its weights. Not
/// the largest: where a sum is 0 but for rounding, peers may disagree on whether ReLU lets its
/// gradient through, which moves the weights of one neuron by one image's part.
double disagreement(const StepPeer& first, const StepPeer& other) {
  double differences = 0.0;
  double all = 0.0;
  for (int l = 0; l < kStepLayers; ++l) {
    const std::vector<float> a = first.values(l);
    const std::vector<float> b = other.values(l);
    if (a.size() != b.size()) return INFINITY;
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
      differences += difference * difference;
      all += static_cast<double>(a[i]) * static_cast<double>(a[i]);
    }
  }
  return std::sqrt(differences / all);
}

/// The median step of one turn.
double take_turn(StepPeer& peer, double seconds) {
  std::this_thread::sleep_for(kPause);
  std::vector<double> samples;
  static_cast<void>(peer.step());  // wakes its threads
  for (const double start = now_seconds(); now_seconds() - start < seconds || samples.size() < 3;) {
    samples.push_back(peer.step());
  }
  return median_of(samples);
}

double median_ratio(const std::vector<double>& of, const std::vector<double>& to) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < of.size(); ++i) ratios.push_back(of[i] / to[i]);
  return median_of(ratios);
}

json run_case(const StepCase& step, const Options& options, bool& agree) {
  std::vector<std::unique_ptr<StepPeer>> peers = make_step_peers(step, options.python);
  json record{{"width", step.width},
              {"batch", step.batch},
              {"sparsity", step.sparsity},
              {"threads", step.threads},
              {"nonzeros", step.layers[0].values.size()}};
  std::string line = fmt::format("{:5} wide, batch {:4}, {:2.0f} % sparse:", step.width, step.batch,
                                 100.0 * step.sparsity);
  std::vector<double> differences;
  for (const auto& peer : peers) {
    for (int i = 0; i < kCheckedSteps; ++i) static_cast<void>(peer->step());
    differences.push_back(disagreement(*peers.front(), *peer));
    agree = agree && differences.back() < 1e-5;
  }
  const OtherLoad others;
  std::vector<std::vector<double>> seconds(peers.size());
  for (int turn = 0; turn < options.turns; ++turn) {
    for (std::size_t i = 0; i < peers.size(); ++i) {
      const std::size_t which = turn % 2 == 0 ? i : peers.size() - 1 - i;
      seconds[which].push_back(take_turn(*peers[which], options.turn_s));
    }
  }
  record["other_cores"] = others.cores();
  for (std::size_t i = 0; i < peers.size(); ++i) {
    json entry = summarize(seconds[i]);
    entry["name"] = peers[i]->name();
    entry["about"] = peers[i]->about();
    entry["disagreement"] = differences[i];
    entry["times_slower"] = median_ratio(seconds[i], seconds.front());
    line += fmt::format("  {} {:.2f} ms ({:.1f}x)", peers[i]->name(),
                        1e3 * entry["median_s"].get<double>(), entry["times_slower"].get<double>());
    record["peers"].push_back(std::move(entry));
  }
  fmt::print("{}\n", line);
  std::fflush(stdout);
  return record;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  Options options;
  CLI::App app("One training step beside dense masked and sparse libraries, side by side");
  app.add_option("--width", options.widths, "Neurons of both layers")->capture_default_str();
  app.add_option("--batch", options.batches, "Images of a step")->capture_default_str();
  app.add_option("--sparsity", options.sparsities, "Part of the weights that is not there")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Threads of every peer")->capture_default_str();
  app.add_option("--turns", options.turns, "Turns of every peer")->capture_default_str();
  app.add_option("--turn-seconds", options.turn_s, "Length of a turn")->capture_default_str();
  app.add_option("--python", options.python, "Interpreter with SciPy; '' leaves SciPy out")
      ->capture_default_str();
  app.add_option("--output", options.output, "Result file");
  CLI11_PARSE(app, argc, argv);
  try {
    json result{{"conditions", describe_conditions({argv, argv + argc})}};
    bool agree = true;
    for (const std::int64_t width : options.widths) {
      for (const std::int64_t batch : options.batches) {
        for (const double sparsity : options.sparsities) {
          const StepCase step = make_case(width, batch, sparsity, options.threads);
          result["cases"].push_back(run_case(step, options, agree));
        }
      }
    }
    result["peers_agree"] = agree;
    if (!options.output.empty()) write_file_atomically(options.output, result.dump(1) + "\n");
    if (!agree) fmt::print(stderr, "the peers' weights differ\n");
    return agree ? 0 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_train_step: {}\n", error.what());
    return 3;
  }
}
