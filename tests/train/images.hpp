// Labelled images made up for tests: noisy copies of one picture a class, learned in seconds.
#pragma once

#include <random>

#include "spdnn/train.hpp"
#include "spdnn/train_plan.hpp"

namespace spdnn::test {

inline LabelledImages made_up_images(std::int64_t count, std::uint64_t seed) {
  constexpr std::int64_t kSide = 6;
  constexpr std::int64_t kClasses = 4;
  std::mt19937_64 pictures(99);
  std::vector<int> prototypes;
  for (std::int64_t i = 0; i < kClasses * kSide * kSide; ++i) {
    prototypes.push_back(static_cast<int>(pictures() % 256));
  }
  std::mt19937_64 random(seed);
  LabelledImages images;
  images.count = count;
  images.height = images.width = kSide;
  images.classes = kClasses;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto label = static_cast<std::int32_t>(random() % kClasses);
    images.labels.push_back(label);
    for (std::int64_t p = 0; p < kSide * kSide; ++p) {
      const int noise = static_cast<int>(random() % 161) - 80;
      images.pixels.push_back(static_cast<std::uint8_t>(
          std::clamp(prototypes[label * kSide * kSide + p] + noise, 0, 255)));
    }
  }
  return images;
}

/// Two sparse layers and a dense one; a few epochs learn the made-up images.
inline TrainSpec small_spec() {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  TrainSpec spec;
  LayerSpec hidden;
  hidden.outputs = 48;
  hidden.density = 0.2;
  hidden.activation = {0.0F, kInfinity};
  LayerSpec last;
  last.outputs = 4;
  last.topology = Topology::dense;
  last.activation = {-kInfinity, kInfinity};
  spec.layers = {hidden, hidden, last};
  spec.epochs = 6;
  spec.batch = 64;
  spec.optimizer.rate = 0.005;
  spec.fingerprint = "small";
  return spec;
}

/// A sparse convolution, a pooling and a dense layer.
inline TrainSpec convolutional_spec() {
  TrainSpec spec = small_spec();
  LayerSpec conv = spec.layers.front();
  conv.kind = LayerKind::conv2d;
  conv.outputs = 12;
  conv.kernel = 3;
  conv.density = 0.5;
  LayerSpec pool;
  pool.kind = LayerKind::max_pool;
  pool.kernel = pool.stride = 2;
  spec.layers = {conv, pool, spec.layers.back()};
  return spec;
}

inline std::vector<DeviceSpec> cpu_ranks(int ranks, int threads = 1) {
  std::vector<DeviceSpec> specs(static_cast<std::size_t>(ranks));
  for (DeviceSpec& spec : specs) spec.threads = threads;
  return specs;
}

/// Costs that depend on no clock: every device takes a tenth of a millisecond for an image of a
/// step, of it each layer as much as it has of all units; what ranks tell each other is free, up to
/// the time of a message.
inline TrainCosts invented_costs(const TrainSpec& spec, std::size_t ranks) {
  constexpr double kImage = 1e-4;
  double units = 0.0;
  for (const LayerSpec& layer : spec.layers) units += static_cast<double>(layer.outputs);
  TrainDevice device;
  device.images.curve = CostCurve({{spec.batch, kImage * static_cast<double>(spec.batch)}});
  for (const LayerSpec& layer : spec.layers) {
    const double all = kImage * static_cast<double>(layer.outputs) / units;
    device.rows.push_back(CostCurve({{layer.outputs, all}}));
  }
  return {std::vector<TrainDevice>(ranks, device), {1e-6, 0.0}, {1e-6, 0.0}};
}

/// All weights and biases of a model, in order.
inline std::vector<float> parameters_of(const Model& model) {
  std::vector<float> all;
  for (const Layer& layer : model.layers) {
    const CsrView& w = layer_weights(layer).view();
    for (std::int64_t k = 0; k < w.nnz; ++k) {
      all.push_back(static_cast<float>(w.col(k)));
      all.push_back(static_cast<float>(w.value(k)));
    }
    all.insert(all.end(), layer_bias(layer).begin(), layer_bias(layer).end());
  }
  return all;
}

}  // namespace spdnn::test
