// One rank's training some steps of which rewire, as tests of rewiring have it.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "rewire.hpp"
#include "topology.hpp"
#include "train/device_patterns.hpp"
#include "train/images.hpp"
#include "train/on_gpu.hpp"

namespace spdnn::test {

/// Layers of all kinds: one of few connections, a convolution, one with all connections there are,
/// one in which none is to change, and a dense one.
inline std::vector<train::TrainLayer> layers_of_all_kinds(std::mt19937_64& random) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Epilogue relu = {0.0F, kInfinity};
  const Window2d window = {2, 5, 5, 3, 3, 1, 1, 1, 5, 5};
  using train::conv_layer;
  using train::linear_layer;
  std::vector<train::TrainLayer> all;
  all.push_back(conv_layer(window, random_pattern(3, 18, 0.4, random), relu));
  all.push_back(linear_layer(random_pattern(37, 75, 0.2, random), relu));
  all.push_back(linear_layer(random_pattern(9, 37, 1.1, random), relu));
  all.push_back(linear_layer(train::Pattern(11, 9, std::vector<std::int64_t>(12), {}), relu));
  all.push_back(linear_layer(random_pattern(20, 11, 0.3, random), relu));
  all.push_back(linear_layer(train::Pattern::dense(4, 20), {-kInfinity, kInfinity}));
  return all;
}

inline TrainSpec rewired(RewireMethod method, OptimizerKind optimizer, Precision stored) {
  TrainSpec spec;
  spec.layers.resize(6);
  spec.rewire = {method, 2, 0.4, 0.75};
  spec.optimizer.kind = optimizer;
  spec.optimizer.rate = 0.01;
  spec.precision = stored;
  return spec;
}

/// One rank's training with one way of rewiring.
struct RewiredSide {
  /// Values are off by up to `noise` of themselves.
  RewiredSide(const TrainSpec& spec, const std::vector<train::TrainLayer>& layers,
              Communicator& model, Device& device, float noise = 0.0F)
      : stream(device.make_stream()),
        worker(spec, layers,
               device.info().kind == DeviceKind::cuda ? *cuda_kernels<float>()
                                                      : train_kernels<float>().back(),
               model, device, *stream, 100) {
    worker.make_room(70);
    std::vector<train::LayerRows<float>> rows = train::first_rows(spec, layers, {});
    // Halves of drawn values that are equal are ties.
    for (float& value : rows[1].values[0]) value = std::round(8.0F * value) / 8.0F;
    std::mt19937_64 random(3);
    for (train::LayerRows<float>& of : rows) {
      for (float& value : of.values[0]) {
        value *= 1.0F + noise * static_cast<float>(random() % 1000) / 1000.0F;
      }
    }
    worker.load_whole(train::split_units(layers, {1.0}), std::move(rows));
  }

  /// Returns how many connections grew.
  std::int64_t step(const Panels<const float>& x, const std::vector<std::int32_t>& labels,
                    bool rewire, Communicator& data) {
    train::AnyBatchPass<float>::Visit visit;
    if (rewire && rewirer->needs_gradient()) {
      visit = [&](std::size_t layer, const train::AnyBatchPass<float>::GradientOn& gradient) {
        rewirer->observe(layer, gradient, 0.1);
      };
    }
    worker.pass().start(x, Loss::cross_entropy, labels.data(), 1.0F / 70.0F);
    worker.pass().backward(visit);
    static_cast<void>(worker.pass().finish_loss(nullptr));
    if (rewire) {
      worker.optimizer().skip_step();
      return rewirer->apply(0.1);
    }
    train::Network<float>& network = worker.network();
    if (data.size() > 1) {
      data.all_reduce(network.gradient(), network.gradient(), network.parameter_count(), DType::f32,
                      Reduction::sum, stream.get());
    }
    worker.optimizer().step();
    return 0;
  }

  std::unique_ptr<Stream> stream;
  train::Worker worker;
  std::unique_ptr<train::Rewirer> rewirer;
};

/// Connections, values, biases and the optimiser's state of a layer, bit for bit.
inline void expect_same_rows(RewiredSide& got_side, RewiredSide& expected_side, std::size_t layer) {
  const train::LayerRows<float> got = got_side.worker.rows(layer, got_side.worker.arrays());
  const train::LayerRows<float> expected =
      expected_side.worker.rows(layer, expected_side.worker.arrays());
  EXPECT_EQ(got.pattern.row_offsets(), expected.pattern.row_offsets());
  EXPECT_EQ(got.pattern.col_indices(), expected.pattern.col_indices());
  ASSERT_EQ(got.values.size(), expected.values.size());
  for (std::size_t a = 0; a < got.values.size(); ++a) {
    EXPECT_EQ(bits_of(got.values[a]), bits_of(expected.values[a])) << "array " << a;
    EXPECT_EQ(bits_of(got.biases[a]), bits_of(expected.biases[a])) << "array " << a;
  }
}

}  // namespace spdnn::test
