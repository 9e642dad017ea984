// Whole training runs on a GPU, or where tests are built for the SIMT layer, on that: they end
// where the CPU's do, up to rounding, and give the same bits again, resumed or not.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "support/devices.hpp"
#include "support/scratch.hpp"
#include "train/images.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using test::cpu_ranks;
using test::made_up_images;
using test::parameters_of;

class GpuTraining : public testing::Test {
 protected:
  void SetUp() override {
    for (const DeviceSpec& spec : test::tested_devices()) {
      if (spec.kind == DeviceKind::cuda) gpus_.push_back(spec);
    }
    if (gpus_.empty()) GTEST_SKIP() << "there is no CUDA device";
    gpus_.resize(1);
  }

  /// A few steps of batches that are no whole number of panels.
  static TrainSpec spec() {
    TrainSpec spec = test::small_spec();
    spec.epochs = 2;
    spec.batch = 70;
    spec.optimizer.kind = OptimizerKind::momentum;
    spec.optimizer.rate = 0.02;
    spec.optimizer.clip_norm = 2.0;
    return spec;
  }

  static TrainResult run(const TrainSpec& spec, const std::vector<DeviceSpec>& devices) {
    return train_network(spec, made_up_images(230, 1), made_up_images(90, 2), devices, {});
  }

  static void expect_near(const TrainResult& cpu, const TrainResult& gpu) {
    ASSERT_EQ(gpu.epochs.size(), cpu.epochs.size());
    for (std::size_t e = 0; e < cpu.epochs.size(); ++e) {
      EXPECT_NEAR(gpu.epochs[e].train.loss, cpu.epochs[e].train.loss, 1e-5);
      EXPECT_EQ(gpu.epochs[e].train.images, cpu.epochs[e].train.images);
      EXPECT_EQ(gpu.epochs[e].rewired, cpu.epochs[e].rewired);
    }
    EXPECT_NEAR(gpu.test.loss, cpu.test.loss, 1e-5);
    EXPECT_EQ(gpu.test.images, 90);
    const std::vector<float> a = parameters_of(cpu.model);
    const std::vector<float> b = parameters_of(gpu.model);
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-5) << "parameter " << i;
  }

  std::vector<DeviceSpec> gpus_;
};

TEST_F(GpuTraining, EndsWhereTheCpuDoes) {
  for (const Loss loss : {Loss::cross_entropy, Loss::mean_squared_error}) {
    TrainSpec s = spec();
    s.loss = loss;
    s.validation = 30;
    expect_near(run(s, cpu_ranks(1)), run(s, gpus_));
  }
}

TEST_F(GpuTraining, ConvolutionsEndWhereTheCpusDo) {
  TrainSpec s = test::convolutional_spec();
  s.epochs = 1;
  s.batch = 70;
  s.optimizer.kind = OptimizerKind::sgd;
  s.optimizer.rate = 0.05;
  for (const LayerKind pooling : {LayerKind::max_pool, LayerKind::average_pool}) {
    s.layers[1].kind = pooling;
    s.layers[0].topology = pooling == LayerKind::max_pool ? Topology::random : Topology::dense;
    expect_near(run(s, cpu_ranks(1)), run(s, gpus_));
  }
}

TEST_F(GpuTraining, ConnectionsComeAndGoAsOnTheCpu) {
  for (const RewireMethod method : {RewireMethod::set, RewireMethod::rigl}) {
    TrainSpec s = spec();
    s.rewire = {method, 3, 0.3, 0.9};
    const TrainResult gpu = run(s, gpus_);
    expect_near(run(s, cpu_ranks(1)), gpu);
    EXPECT_GT(gpu.epochs[0].rewired, 0);
    EXPECT_EQ(parameters_of(gpu.model), parameters_of(run(s, gpus_).model));
  }
}

TEST_F(GpuTraining, ResumedRunsEndWithTheSameBits) {
  const test::ScratchDir folder;
  for (const OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::adamw}) {
    TrainSpec s = spec();
    s.epochs = 3;
    s.optimizer.kind = kind;
    s.optimizer.rate = 0.005;
    s.rewire = {RewireMethod::rigl, 5, 0.3, 0.9};
    s.checkpoint.keep_last = 3;
    s.checkpoint.folder = folder.path() / fmt::format("whole {}", static_cast<int>(kind));
    const TrainResult whole = run(s, gpus_);
    TrainSpec resumed = s;
    resumed.checkpoint.folder = folder.path() / fmt::format("resumed {}", static_cast<int>(kind));
    resumed.checkpoint.resume = true;
    fs::create_directories(resumed.checkpoint.folder);
    const auto file = [](const TrainSpec& of, int epoch) {
      return of.checkpoint.folder / fmt::format("checkpoint-{:06}.safetensors", epoch);
    };
    fs::copy(file(s, 1), file(resumed, 1));
    const TrainResult end = run(resumed, gpus_);
    EXPECT_EQ(end.resumed_epochs, 1);
    EXPECT_EQ(parameters_of(end.model), parameters_of(whole.model));
    EXPECT_EQ(test::read_text(file(resumed, 3)), test::read_text(file(s, 3)));
  }
}

/// Two ranks of one GPU, and one beside a CPU, share each batch.
TEST_F(GpuTraining, RanksShareABatch) {
  TrainSpec s = spec();
  s.epochs = 1;
  s.batch = 200;
  const TrainResult one = run(s, cpu_ranks(1));
  for (const DeviceSpec& other : {gpus_[0], DeviceSpec{}}) {
    const TrainResult shared = run(s, {gpus_[0], other});
    expect_near(one, shared);
    for (const std::int64_t images : shared.rank_images) EXPECT_GT(images, 0);
  }
}

TEST_F(GpuTraining, KeptStepsChangeNoBit) {
  TrainSpec s = spec();
  s.validation = 30;
  const TrainResult kept = run(s, gpus_);
  s.cuda_graphs = false;
  const TrainResult anew = run(s, gpus_);
  EXPECT_GT(kept.rank_replays[0], 0);
  EXPECT_EQ(anew.rank_replays[0], 0);
  EXPECT_EQ(parameters_of(kept.model), parameters_of(anew.model));
  EXPECT_EQ(kept.epochs.back().validation->loss, anew.epochs.back().validation->loss);
}

TEST_F(GpuTraining, MemoryIsListedByKind) {
  const TrainResult result = run(spec(), gpus_);
  std::int64_t listed = 0;
  for (const MemoryItem& item : result.memory) listed += item.device_bytes;
  EXPECT_LE(listed, result.peak_device_bytes);
  EXPECT_GE(1.02 * static_cast<double>(listed), static_cast<double>(result.peak_device_bytes));
}

}  // namespace
}  // namespace spdnn
