// Whole training runs in which GPUs share rows, among themselves and with CPUs: the losses of one
// rank, the bytes that the partition predicts, and the same bits again. On a GPU, or where tests
// are built for the SIMT layer, on that.
#include <gtest/gtest.h>

#include "support/devices.hpp"
#include "train/images.hpp"

namespace spdnn {
namespace {

using test::made_up_images;
using test::parameters_of;

class GpuRows : public testing::Test {
 protected:
  void SetUp() override {
    for (const DeviceSpec& spec : test::tested_devices()) {
      if (spec.kind == DeviceKind::cuda) gpu_ = spec;
    }
    if (gpu_.kind != DeviceKind::cuda) GTEST_SKIP() << "there is no CUDA device";
  }

  /// A few steps of batches that are no whole number of panels.
  static TrainSpec spec() {
    TrainSpec spec = test::small_spec();
    spec.epochs = 1;
    spec.batch = 150;
    spec.optimizer.kind = OptimizerKind::momentum;
    spec.optimizer.rate = 0.02;
    spec.optimizer.clip_norm = 2.0;
    spec.validation = 30;
    return spec;
  }

  /// G: a GPU, each rank the same one; c: a CPU rank.
  [[nodiscard]] TrainResult run(TrainSpec spec, const std::string& ranks, int model_ranks) const {
    spec.model_ranks = model_ranks;
    std::vector<DeviceSpec> devices;
    for (const char rank : ranks) devices.push_back(rank == 'G' ? gpu_ : DeviceSpec{});
    return train_network(spec, made_up_images(330, 1), made_up_images(90, 2), devices, {});
  }

  static void expect_near(const TrainResult& one, const TrainResult& shared) {
    ASSERT_EQ(shared.epochs.size(), one.epochs.size());
    for (std::size_t e = 0; e < one.epochs.size(); ++e) {
      const double loss = one.epochs[e].train.loss;
      EXPECT_NEAR(shared.epochs[e].train.loss, loss, 1e-4 * loss);
      EXPECT_NEAR(shared.epochs[e].validation->loss, one.epochs[e].validation->loss, 1e-4 * loss);
      EXPECT_EQ(shared.epochs[e].rewired, one.epochs[e].rewired);
    }
    EXPECT_NEAR(shared.test.loss, one.test.loss, 1e-4 * one.test.loss);
    const std::vector<float> a = parameters_of(one.model);
    const std::vector<float> b = parameters_of(shared.model);
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-4) << "parameter " << i;
  }

  DeviceSpec gpu_;
};

TEST_F(GpuRows, LossesAreThoseOfOneRank) {
  const TrainResult one = run(spec(), "c", 1);
  for (const char* ranks : {"GG", "GGG", "Gc", "cGcG"}) {
    SCOPED_TRACE(ranks);
    const auto size = static_cast<int>(std::string(ranks).size());
    expect_near(one, run(spec(), ranks, size));
  }
  TrainSpec uneven = spec();
  uneven.split = {SplitKind::ratios, {1.0, 5.0, 0.0}};
  expect_near(one, run(uneven, "GGc", 3));
}

TEST_F(GpuRows, GridsShareImagesToo) {
  const TrainResult one = run(spec(), "c", 1);
  for (const char* ranks : {"GGGG", "GcGc", "GGcc"}) {
    SCOPED_TRACE(ranks);
    expect_near(one, run(spec(), ranks, 2));
  }
}

TEST_F(GpuRows, FiltersAreRows) {
  TrainSpec s = test::convolutional_spec();
  s.epochs = 1;
  s.batch = 70;
  s.validation = 30;
  s.optimizer.rate = 0.02;
  const TrainResult one = run(s, "c", 1);
  expect_near(one, run(s, "GG", 2));
  expect_near(one, run(s, "GcG", 3));
}

TEST_F(GpuRows, ConnectionsComeAndGo) {
  for (const RewireMethod method : {RewireMethod::set, RewireMethod::rigl}) {
    TrainSpec s = spec();
    s.batch = 50;
    s.rewire = {method, 3, 0.3, 0.9};
    const TrainResult shared = run(s, "Gc", 2);
    EXPECT_GT(shared.epochs[0].rewired, 0);
    EXPECT_EQ(parameters_of(shared.model), parameters_of(run(s, "Gc", 2).model));
    s.rewire.every = 5;  // once: later ones hang on rounding
    expect_near(run(s, "c", 1), run(s, "Gc", 2));
  }
}

TEST_F(GpuRows, BytesAreThoseThePartitionPredicts) {
  for (const char* model : {"hypergraph", "cyclic"}) {
    TrainSpec s = spec();
    s.partition.model = model;
    const TrainResult shared = run(s, "GcG", 3);
    ASSERT_TRUE(shared.rows);
    ASSERT_EQ(shared.rows->layers.size(), 4U);
    for (const RowTraffic::Layer& layer : shared.rows->layers) {
      EXPECT_EQ(layer.forward, layer.predicted_forward);
      EXPECT_EQ(layer.backward, layer.predicted_backward);
    }
    EXPECT_GT(shared.rows->layers[1].forward, 0);
  }
}

/// What rows cost on each device, and what goes between them, is measured on unlike ones.
TEST_F(GpuRows, LayoutsAreMeasured) {
  TrainSpec s = spec();
  s.batch = 64;
  expect_near(run(s, "c", 1), run(s, "Gc", 0));
}

/// Messages hold what is stored: without steps a network's loss is that of one rank, up to fp32's
/// rounding of the loss itself, and half of fp32's bytes cross. With steps it ends within four
/// units in the last place.
TEST_F(GpuRows, SixteenBitsCrossAsTheyAreStored) {
  TrainSpec convolutional = test::convolutional_spec();
  convolutional.epochs = 1;
  convolutional.batch = 70;
  convolutional.validation = 30;
  for (TrainSpec s : {spec(), convolutional}) {
    const TrainResult wide = run(s, "GG", 2);
    for (const auto& [stored, unit] :
         {std::pair{Precision::bf16, 0x1p-8}, {Precision::fp16, 0x1p-11}}) {
      SCOPED_TRACE(to_string(stored));
      s.precision = stored;
      s.optimizer.rate = 0.0;
      EXPECT_NEAR(run(s, "GGG", 3).test.loss, run(s, "G", 1).test.loss, 1e-6);
      s.optimizer.rate = 0.02;
      const TrainResult one = run(s, "G", 1);
      for (const auto& [ranks, model_ranks] : {std::pair{"GG", 2}, {"GGG", 3}, {"GGGG", 2}}) {
        SCOPED_TRACE(ranks);
        const TrainResult shared = run(s, ranks, model_ranks);
        EXPECT_NEAR(shared.test.loss, one.test.loss, 4.0 * unit * one.test.loss);
        const std::vector<float> a = parameters_of(one.model);
        const std::vector<float> b = parameters_of(shared.model);
        ASSERT_EQ(a.size(), b.size());
        for (std::size_t i = 0; i < a.size(); ++i) {
          ASSERT_NEAR(a[i], b[i], 4.0 * unit) << "parameter " << i;
        }
        if (std::string(ranks) != "GG") continue;
        for (std::size_t l = 0; l < wide.rows->layers.size(); ++l) {
          const RowTraffic::Layer& layer = shared.rows->layers[l];
          EXPECT_EQ(layer.forward, layer.predicted_forward) << "layer " << l;
          EXPECT_EQ(layer.backward, layer.predicted_backward) << "layer " << l;
          const bool is_loss = l + 1 == wide.rows->layers.size();  // its words are fp32's
          EXPECT_EQ((is_loss ? 1 : 2) * layer.forward, wide.rows->layers[l].forward)
              << "layer " << l;
        }
      }
    }
  }
}

TEST_F(GpuRows, ConnectionsInSixteenBitsComeAndGo) {
  TrainSpec s = spec();
  s.batch = 50;
  s.precision = Precision::bf16;
  s.rewire = {RewireMethod::rigl, 5, 0.3, 0.9};  // once: later ones hang on rounding
  const TrainResult one = run(s, "G", 1);
  const TrainResult shared = run(s, "GG", 2);
  EXPECT_GT(shared.epochs[0].rewired, 0);
  EXPECT_EQ(shared.epochs[0].rewired, one.epochs[0].rewired);
  EXPECT_NEAR(shared.test.loss, one.test.loss, 0x1p-6 * one.test.loss);
}

/// What 16 bits cost, by rows too, is measured and weighed.
TEST_F(GpuRows, LayoutsOfSixteenBitsAreMeasured) {
  TrainSpec s = spec();
  s.batch = 64;
  s.precision = Precision::fp16;
  s.rebalance = true;
  const TrainResult one = run(s, "G", 1);
  EXPECT_NEAR(run(s, "GG", 0).test.loss, one.test.loss, 0x1p-9 * one.test.loss);
}

}  // namespace
}  // namespace spdnn
