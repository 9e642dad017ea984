// Drawing the layers that kernels are timed on.
#include "kernels/layers.hpp"

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

std::vector<LayerCase> make_cases() {
  std::vector<LayerCase> cases;
  for (const std::int64_t neurons : {1024, 4096, 16384, 65536}) {
    cases.push_back({"challenge_" + std::to_string(neurons), challenge_layer(neurons)});
  }
  for (const std::int64_t neurons : {1024, 4096, 16384}) {
    cases.push_back({"random_" + std::to_string(neurons), random_layer(neurons)});
  }
  return cases;
}

}  // namespace

const std::vector<LayerCase>& layer_cases() {
  static const std::vector<LayerCase> cases = make_cases();
  return cases;
}

}  // namespace spdnn::bench
