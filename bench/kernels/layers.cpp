// Drawing the layers that kernels are timed on.
#include "kernels/layers.hpp"

#include <random>

#include "networks/random_network.hpp"
#include "spdnn/io.hpp"

namespace spdnn::bench {
namespace {

/// The second stage of a RadiX-Net's second group, the first with a random permutation.
Csr challenge_layer(std::int64_t neurons) {
  std::int64_t stages = 0;
  RadixNetSpec spec;
  while ((std::int64_t{1} << stages) < neurons / spec.fold) ++stages;
  spec.neurons = neurons;
  spec.layers = 2 * stages;
  return radixnet_layer(spec, stages + 1);
}

Csr random_layer(std::int64_t neurons) {
  return RandomNetwork({neurons, 1, 64, 1}).scaled(0.25F).front();
}

/// Of a row, the columns drawn with the probability `part`, and random values.
Csr full_layer(std::int64_t neurons, double part) {
  std::mt19937 random(1);
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> columns;
  std::vector<float> values;
  for (std::int64_t row = 0; row < neurons; ++row) {
    for (std::int64_t column = 0; column < neurons; ++column) {
      if (static_cast<double>(random()) >= part * 0x1p32) continue;
      columns.push_back(static_cast<std::uint32_t>(column));
      values.push_back(static_cast<float>(random()) * 0x1p-36F - 0x1p-5F);
    }
    offsets.push_back(std::ssize(columns));
  }
  return make_csr(neurons, neurons, std::move(offsets), std::move(columns), std::move(values));
}

std::vector<LayerCase> make_cases() {
  std::vector<LayerCase> cases;
  for (const std::int64_t neurons : {1024, 4096, 16384, 65536}) {
    cases.push_back({"challenge_" + std::to_string(neurons), challenge_layer(neurons)});
  }
  for (const std::int64_t neurons : {1024, 4096, 16384}) {
    cases.push_back({"random_" + std::to_string(neurons), random_layer(neurons)});
  }
  cases.push_back({"half_1024", full_layer(1024, 0.5)});
  cases.push_back({"dense_1024", full_layer(1024, 1.0)});
  return cases;
}

}  // namespace

const std::vector<LayerCase>& layer_cases() {
  static const std::vector<LayerCase> cases = make_cases();
  return cases;
}

}  // namespace spdnn::bench
