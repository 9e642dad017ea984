// Whole training runs on a GPU, or where tests are built for the SIMT layer, on that: they end
// where the CPU's do, up to rounding, and give the same bits again, resumed or not.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "checkpoint.hpp"
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

  static TrainSpec convolutional() {
    TrainSpec spec = test::convolutional_spec();
    spec.epochs = 1;
    spec.batch = 70;
    spec.optimizer.kind = OptimizerKind::sgd;
    spec.optimizer.rate = 0.05;
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
  TrainSpec s = convolutional();
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

/// Stored in fp16, with a scale that begins too high and doubles each other step.
TEST_F(GpuTraining, ResumedRunsEndWithTheSameBits) {
  const test::ScratchDir folder;
  for (const OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::adamw}) {
    TrainSpec s = spec();
    s.epochs = 3;
    s.precision = kind == OptimizerKind::sgd ? Precision::fp32 : Precision::fp16;
    s.loss_scale = {0x1p24F, 2};
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
    if (s.precision == Precision::fp32) continue;
    const LossScale scale = train::read_checkpoint(file(s, 1)).state.progress.loss_scale;
    EXPECT_LT(scale.scale, 0x1p24F);
    EXPECT_GT(scale.taken, 0);
    EXPECT_LT(scale.taken, whole.epochs[0].steps);
    for (const float value : parameters_of(end.model)) ASSERT_TRUE(std::isfinite(value));
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

/// Stored in 16 bits, a training ends where fp32's does up to four of its units in the last place.
TEST_F(GpuTraining, SixteenBitsEndWhereThirtyTwoDo) {
  for (TrainSpec s : {spec(), convolutional()}) {
    const TrainResult whole = run(s, gpus_);
    for (const auto& [stored, unit] :
         {std::pair{Precision::bf16, 0x1p-8}, {Precision::fp16, 0x1p-11}}) {
      SCOPED_TRACE(to_string(stored));
      s.precision = stored;
      const TrainResult narrow = run(s, gpus_);
      EXPECT_NEAR(narrow.test.loss, whole.test.loss, 4.0 * unit * whole.test.loss);
      const std::vector<float> a = parameters_of(whole.model);
      const std::vector<float> b = parameters_of(narrow.model);
      ASSERT_EQ(a.size(), b.size());
      EXPECT_NE(a, b);
      for (std::size_t i = 0; i < a.size(); ++i) {
        ASSERT_NEAR(a[i], b[i], 4.0 * unit) << "parameter " << i;
      }
    }
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

/// 16 bits take half of the activations, deltas and values by columns, and a copy of the values.
TEST_F(GpuTraining, MemoryIsListedByKind) {
  std::map<std::string, std::int64_t> wide;
  for (const Precision stored : {Precision::fp32, Precision::bf16, Precision::fp16}) {
    SCOPED_TRACE(to_string(stored));
    TrainSpec s = spec();
    s.precision = stored;
    if (stored != Precision::fp32) s.rewire = {RewireMethod::rigl, 3, 0.3, 0.9};
    const TrainResult result = run(s, gpus_);
    std::int64_t listed = 0;
    std::map<std::string, std::int64_t> items;
    for (const MemoryItem& item : result.memory) {
      listed += item.device_bytes;
      items[item.name] = item.device_bytes;
    }
    EXPECT_LE(listed, result.peak_device_bytes);
    EXPECT_GE(1.02 * static_cast<double>(listed), static_cast<double>(result.peak_device_bytes));
    if (stored == Precision::fp32) {
      wide = items;
      EXPECT_EQ(items["copies in 16 bits"], 0);
      continue;
    }
    for (const char* halved : {"activations", "deltas", "values by columns"}) {
      EXPECT_EQ(2 * items[halved], wide[halved]) << halved;
    }
    EXPECT_GT(items["copies in 16 bits"], 0);
    EXPECT_GT(items["rewiring"], 0);
    EXPECT_EQ(items["values and biases"], wide["values and biases"]);
  }
}

TEST_F(GpuTraining, OnlyGpusStoreSixteenBits) {
  TrainSpec s = spec();
  s.precision = Precision::bf16;
  EXPECT_THROW(static_cast<void>(run(s, cpu_ranks(1))), InputError);
  EXPECT_THROW(static_cast<void>(run(s, {gpus_[0], DeviceSpec{}})), InputError);
  s.precision = Precision::tf32;
  EXPECT_THROW(static_cast<void>(run(s, gpus_)), InputError);
}

}  // namespace
}  // namespace spdnn
