// bench_conv: a convolution forward and backward at several sparsities beside this project's dense
// kernel and oneDNN's, in turn in one call, with results that must agree; and from which sparsity
// on the sparse one is faster.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>

#include "conv/conv.hpp"
#include "spdnn/io.hpp"
#include "spdnn/model.hpp"
#include "spdnn/random.hpp"
#include "support/record.hpp"

namespace spdnn::bench {

ConvCase make_conv_case(std::string name, const Window2d& window, std::int64_t filters,
                        std::int64_t batch, double sparsity, int threads) {
  ConvCase conv{std::move(name), window, filters, batch, sparsity, threads, {}, {}, {}, {}};
  Random random(7, 0);
  const auto fill = [&](std::vector<float>& to, std::int64_t count, double zeros) {
    for (std::int64_t i = 0; i < count; ++i) {
      const bool zero = random.between(0.0, 1.0) < zeros;
      to.push_back(zero ? 0.0F : static_cast<float>(random.between(-1.0, 1.0)));
    }
  };
  fill(conv.weights, filters * window.channels * window.taps(), sparsity);
  fill(conv.bias, filters, 0.0);
  fill(conv.x, batch * window.inputs(), 0.0);
  fill(conv.dz, batch * filters * window.out_pixels(), 0.0);
  return conv;
}

#if !defined(BENCH_HAVE_ONEDNN)
std::unique_ptr<ConvPeer> make_onednn_conv(const ConvCase& /*conv*/) { return nullptr; }
#endif

}  // namespace spdnn::bench

namespace {

using namespace spdnn;
using namespace spdnn::bench;
using nlohmann::json;

struct Options {
  std::vector<double> sparsities{0.5, 0.7, 0.8, 0.9, 0.95};
  std::int64_t batch = 64;
  int threads = 2;
  int turns = 5;
  std::string output;
};

/// The norm of what differs relative to that of all.
double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double differences = 0.0;
  double all = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    differences += d * d;
    all += static_cast<double>(a[i]) * static_cast<double>(a[i]);
  }
  return std::sqrt(differences / std::max(all, 1e-30));
}

double disagreement(const ConvOutputs& a, const ConvOutputs& b) {
  return std::max({difference(a.y, b.y), difference(a.dx, b.dx), difference(a.dweights, b.dweights),
                   difference(a.dbias, b.dbias)});
}

/// Layers of the CIFAR-10 network in configs/train_cifar10.json, the second and fourth of each kind
/// of plane and the first.
std::vector<std::pair<std::string, Window2d>> layers() {
  std::vector<std::pair<std::string, Window2d>> all;
  const auto add = [&](std::int64_t channels, std::int64_t side) {
    all.emplace_back(fmt::format("{} channels of {}x{}", channels, side, side),
                     make_window(channels, side, side, 3, 1, {}));
  };
  add(60, 32);
  add(120, 16);
  add(240, 8);
  add(480, 4);
  return all;
}

/// Seconds of a step of each peer, in turn.
std::vector<std::vector<double>> take_turns(const std::vector<std::unique_ptr<ConvPeer>>& peers,
                                            int turns) {
  std::vector<std::vector<double>> seconds(peers.size());
  for (int turn = 0; turn < turns; ++turn) {
    for (std::size_t i = 0; i < peers.size(); ++i) {
      const std::size_t which = turn % 2 == 0 ? i : peers.size() - 1 - i;
      const double start = now_seconds();
      peers[which]->step();
      seconds[which].push_back(now_seconds() - start);
    }
  }
  return seconds;
}

json run_layer(const std::string& name, const Window2d& window, const Options& options,
               bool& agree) {
  json record{{"layer", name},
              {"filters", window.channels},
              {"batch", options.batch},
              {"threads", options.threads}};
  std::string line = fmt::format("{:24}", name);
  double crossing[2] = {1.0, 1.0};  // against this project's dense kernel, and oneDNN's
  for (const double sparsity : options.sparsities) {
    const ConvCase conv =
        make_conv_case(name, window, window.channels, options.batch, sparsity, options.threads);
    std::vector<std::unique_ptr<ConvPeer>> peers;
    peers.push_back(make_spdnn_conv(conv, false));
    peers.push_back(make_spdnn_conv(conv, true));
    if (auto onednn = make_onednn_conv(conv)) peers.push_back(std::move(onednn));
    json entry{{"sparsity", sparsity}};
    for (const auto& peer : peers) peer->step();
    const ConvOutputs expected = peers[0]->outputs();
    for (std::size_t i = 1; i < peers.size(); ++i) {
      ConvOutputs got = peers[i]->outputs();
      for (std::size_t k = 0; k < got.dweights.size(); ++k) {
        if (conv.weights[k] == 0.0F) got.dweights[k] = 0.0F;
      }
      const double apart = disagreement(expected, got);
      entry["disagreement"].push_back(apart);
      agree = agree && apart < 1e-4;
    }
    const auto seconds = take_turns(peers, options.turns);
    for (std::size_t i = 0; i < peers.size(); ++i) {
      json peer = summarize(seconds[i]);
      peer["name"] = peers[i]->name();
      entry["peers"].push_back(std::move(peer));
    }
    const double sparse = median_of(seconds[0]);
    line += fmt::format("  {:.0f} %: {:.1f} ms", 100.0 * sparsity, 1e3 * sparse);
    for (std::size_t i = 1; i < peers.size(); ++i) {
      const double ratio = median_of(seconds[i]) / sparse;
      entry["times_faster_than"][peers[i]->name()] = ratio;
      line += fmt::format(" {:.2f}x", ratio);
      if (ratio > 1.0) crossing[i - 1] = std::min(crossing[i - 1], sparsity);
    }
    record["sparsities"].push_back(std::move(entry));
  }
  record["faster_from_sparsity"] = {{"spdnn dense", crossing[0]}, {"onednn", crossing[1]}};
  fmt::print("{}\n", line);
  std::fflush(stdout);
  return record;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app(
      "A convolution forward and backward, sparse and dense, beside oneDNN (times faster than this "
      "project's dense kernel, then than oneDNN)");
  app.add_option("--sparsity", options.sparsities, "Parts of the weights that are not there")
      ->capture_default_str();
  app.add_option("--batch", options.batch, "Images of a step")->capture_default_str();
  app.add_option("--threads", options.threads, "Threads of every peer")->capture_default_str();
  app.add_option("--turns", options.turns, "Turns of every peer")->capture_default_str();
  app.add_option("--output", options.output, "Result file");
  CLI11_PARSE(app, argc, argv);
  try {
    json result{{"conditions", describe_conditions({argv, argv + argc})}};
    bool agree = true;
    const OtherLoad others;
    for (const auto& [name, window] : layers()) {
      result["layers"].push_back(run_layer(name, window, options, agree));
    }
    result["other_cores"] = others.cores();
    result["peers_agree"] = agree;
    if (!options.output.empty()) write_file_atomically(options.output, result.dump(1) + "\n");
    if (!agree) fmt::print(stderr, "the peers' results differ\n");
    return agree ? 0 : 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_conv: {}\n", error.what());
    return 3;
  }
}
