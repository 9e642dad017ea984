// Whole runs on a GPU as the SIMT layer plays it: whatever inference does on the device between
// layers, results are those of a CPU rank, bit for bit; and what training leaves runs anywhere.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "spdnn/run.hpp"
#include "support/idx_files.hpp"
#include "support/networks.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using test::Rows;

class OnGpu : public testing::Test {
 protected:
  OnGpu() : folder_(fs::temp_directory_path() / fmt::format("spdnn-on-gpu-{}", getpid())) {
    fs::create_directories(folder_);
    setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
  }
  ~OnGpu() override { fs::remove_all(folder_); }

  /// A network that repeats two matrices, and images of which every fifth is there twice.
  RunConfig make(std::int64_t layers, std::vector<float> bias, const std::vector<Csr>& matrices) {
    std::vector<Csr> weights;
    for (std::int64_t l = 0; l < layers; ++l) weights.push_back(matrices[l % matrices.size()]);
    write_cache(folder_ / "model.spdnn", weights, "test");
    std::mt19937_64 random(4);
    const Csr images =
        test::random_csr({130, matrices[0].cols(), 9, Rows::irregular, true}, random);
    std::vector<std::int64_t> ids;
    for (std::int64_t i = 0; i < images.rows(); ++i) {
      ids.push_back(i);
      if (i % 5 == 0) ids.push_back(i / 2);
    }
    write_cache(folder_ / "images.spdnn", {gather_rows(images, ids)}, "test");
    bias.resize(static_cast<std::size_t>(layers), bias.back());
    RunConfig config;
    config.model = FileModel{folder_ / "model.spdnn", {.bias = std::move(bias), .clip = {2.0F}}};
    config.input.source = FileInput{folder_ / "images.spdnn", {}};
    config.devices.resize(1);
    config.plan.strategy = Strategy::data;
    config.output = folder_ / "out";
    config.file = folder_ / "config.json";
    config.deduplicate_images = false;
    config.verify.sample_against_reference = 40;
    return config;
  }

  RunConfig dying() {
    std::mt19937_64 random(9);
    return make(22, {-0.05F, -0.2F, -0.1F, -0.15F},
                {test::random_csr({64, 64, 26, Rows::grouped, false}, random),
                 test::random_csr({64, 64, 40, Rows::equal, false}, random)});
  }

  /// Runs, once on the CPU and once on the device or on several (G: a GPU, c: a CPU rank), and
  /// compares categories and outputs.
  RunResult expect_as_on_cpu(RunConfig config, const std::string& ranks = "G") {
    const Strategy strategy = std::exchange(config.plan.strategy, Strategy::data);
    const PartitionSpec partition = std::exchange(config.partition, {});
    const std::string kernel = std::exchange(config.plan.kernel, "auto");
    const bool saved = config.save_outputs;
    config.devices.assign(1, {});
    const RunResult cpu = checked(config);
    const std::string outputs = saved ? text(config.output / "outputs.tsv") : "";
    config.plan.kernel = kernel;
    config.plan.strategy = strategy;
    config.partition = partition;
    config.devices.resize(ranks.size());
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      if (ranks[rank] == 'G') config.devices[rank].kind = DeviceKind::cuda;
    }
    RunResult gpu = checked(config);
    EXPECT_EQ(gpu.categories, cpu.categories);
    EXPECT_GT(cpu.categories.size(), 0U);
    if (saved) {
      EXPECT_EQ(text(config.output / "outputs.tsv"), outputs);
    }
    return gpu;
  }

  static RunResult checked(const RunConfig& config) {
    Progress progress;
    RunResult result = run(config, progress);
    EXPECT_EQ(result.status, "verified") << (result.failures.empty() ? "" : result.failures[0]);
    return result;
  }

  /// Noisy copies of one picture a class, in MNIST's files.
  void write_pictures(const std::string& part, std::uint32_t count, unsigned seed) const {
    constexpr std::size_t kPixels = 64;
    std::mt19937 pictures(7);
    std::string prototypes(4 * kPixels, '\0');
    for (char& p : prototypes) p = static_cast<char>(pictures() % 256);
    std::mt19937 random(seed);
    std::string pixels;
    std::string labels;
    for (std::uint32_t i = 0; i < count; ++i) {
      labels += static_cast<char>(random() % 4);
      for (std::size_t p = 0; p < kPixels; ++p) {
        pixels += random() % 3 == 0
                      ? static_cast<char>(random() % 256)
                      : prototypes[static_cast<std::size_t>(labels.back()) * kPixels + p];
      }
    }
    std::ofstream(folder_ / (part + "-images-idx3-ubyte"))
        << test::images_file(count, 8, 8, pixels);
    std::ofstream(folder_ / (part + "-labels-idx1-ubyte")) << test::labels_file(labels);
  }

  static std::string text(const fs::path& file) {
    std::ifstream stream(file);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  fs::path folder_;
};

std::int64_t chains_of(const RunResult& result) {
  return std::count_if(result.plan.segments.begin(), result.plan.segments.end(),
                       [](const Segment& segment) { return !segment.chains[0].empty(); });
}

TEST_F(OnGpu, LayersOneByOneAndChainsGiveTheSameBits) {
  for (const char* kernel : {"spmm_row_warp", "spmm_row_group", "chain_resident"}) {
    for (const bool savings : {false, true}) {
      SCOPED_TRACE(fmt::format("{}, savings {}", kernel, savings));
      RunConfig config = dying();
      config.plan.kernel = kernel;
      config.merge_images = config.skip_fixed_points = savings;
      config.save_outputs = true;
      const RunResult result = expect_as_on_cpu(config);
      EXPECT_EQ(chains_of(result) > 0, config.plan.kernel == "chain_resident");
      EXPECT_EQ(result.equal_images > 0, savings);
    }
  }
}

TEST_F(OnGpu, ChainsCanBeSwitchedOff) {
  RunConfig config = dying();
  config.plan.chains = false;
  EXPECT_EQ(chains_of(expect_as_on_cpu(config)), 0);
}

TEST_F(OnGpu, EqualImagesGoOnAsOneAndDoNotChangeWhatIsFound) {
  RunConfig config = dying();
  config.plan.kernel = "chain_resident";
  config.skip_fixed_points = false;
  const RunResult merged = expect_as_on_cpu(config);
  config.merge_images = false;
  const RunResult apart = expect_as_on_cpu(config);
  EXPECT_GT(merged.equal_images, 0);
  EXPECT_EQ(apart.equal_images, 0);
  EXPECT_LT(merged.edges.executed, apart.edges.executed);
}

/// All layers pass their inputs on, so that every living image is done after the first two.
TEST_F(OnGpu, FixedImagesAreDoneAndTheWantedOnesStay) {
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> cols;
  for (std::uint32_t i = 0; i < 64; ++i) {
    cols.push_back(i);
    offsets.push_back(i + 1);
  }
  const Csr identity = make_csr(64, 64, offsets, cols, {1.0F});
  for (const char* kernel : {"spmm_row_warp", "chain_resident"}) {
    for (const bool keep_all : {false, true}) {
      SCOPED_TRACE(fmt::format("{}, all outputs kept {}", kernel, keep_all));
      RunConfig config = make(20, {0.0F}, {identity});
      config.plan.kernel = kernel;
      config.merge_images = false;
      config.save_outputs = keep_all;
      const RunResult result = expect_as_on_cpu(config);
      EXPECT_EQ(result.fixed_images == 0, keep_all);
      EXPECT_EQ(result.sample.match, true);
      EXPECT_GE(result.sample.images, 20);
    }
  }
}

TEST_F(OnGpu, DeadImagesThatMayReviveGoOnAsOne) {
  RunConfig config = dying();
  std::get<FileModel>(config.model).settings.bias[6] = 0.3F;
  std::get<FileModel>(config.model).settings.bias[2] = -3.0F;
  config.save_outputs = true;
  config.plan.kernel = "chain_resident";
  expect_as_on_cpu(config);
}

TEST_F(OnGpu, LaterBatchesReplayWhatEarlierOnesQueued) {
  for (const char* kernel : {"spmm_row_warp", "chain_resident"}) {
    for (const bool graphs : {false, true}) {
      SCOPED_TRACE(fmt::format("{}, graphs {}", kernel, graphs));
      RunConfig config = dying();
      config.plan.kernel = kernel;
      config.plan.batch = 30;
      config.save_outputs = true;
      config.cuda_graphs = graphs;
      const RunResult result = expect_as_on_cpu(config);
      EXPECT_EQ(result.devices[0].replayed_segments > 0, graphs);
    }
  }
}

TEST_F(OnGpu, WeightsThatDoNotFitAreStaged) {
  for (const char* kernel : {"spmm_row_warp", "spmm_row_group", "spmm_tile"}) {
    SCOPED_TRACE(kernel);
    RunConfig config = dying();
    config.plan.kernel = kernel;
    config.plan.batch = 64;
    config.memory_limit = 180000;
    config.save_outputs = true;
    const RunResult result = expect_as_on_cpu(config);
    EXPECT_TRUE(result.plan.stream_weights[0]);
    EXPECT_EQ(result.devices[0].replayed_segments, 0);
  }
}

/// Rows that GPUs own, among themselves and beside CPUs, whose panels are of another width.
TEST_F(OnGpu, RowsAreSharedWithOthers) {
  struct Case {
    const char* ranks;
    const char* partition;
    std::int64_t batch;
  };
  for (const auto& [ranks, partition, batch] :
       {Case{"GG", "hypergraph", 1000}, Case{"Gc", "cyclic", 30}, Case{"cGcG", "auto", 100}}) {
    SCOPED_TRACE(fmt::format("{}, {}, batch {}", ranks, partition, batch));
    RunConfig config = dying();
    config.plan.strategy = Strategy::model;
    config.partition.model = partition;
    config.plan.batch = batch;
    config.save_outputs = true;
    const RunResult result = expect_as_on_cpu(config, ranks);
    EXPECT_TRUE(result.plan.own_rows);
    ASSERT_TRUE(result.rows);
    for (const RowTraffic::Layer& layer : result.rows->layers) {
      EXPECT_EQ(layer.forward, layer.predicted_forward);
    }
  }
}

/// Dead images that may revive go on as one, on all ranks.
TEST_F(OnGpu, RanksThatShareRowsAgreeWhichImagesDie) {
  RunConfig config = dying();
  std::get<FileModel>(config.model).settings.bias[6] = 0.3F;
  std::get<FileModel>(config.model).settings.bias[2] = -3.0F;
  config.plan.strategy = Strategy::model;
  config.save_outputs = true;
  expect_as_on_cpu(config, "GcG");
}

/// A sparse convolution, one with a stride, both poolings and a dense layer.
std::vector<LayerSpec> convolutional_layers() {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  LayerSpec conv;
  conv.kind = LayerKind::conv2d;
  conv.outputs = 6;
  conv.kernel = 3;
  conv.density = 0.5;
  conv.activation = {0.0F, kInfinity};
  LayerSpec strided = conv;
  strided.stride = 2;
  strided.activation.upper = 2.0F;
  LayerSpec largest;
  largest.kind = LayerKind::max_pool;
  largest.kernel = largest.stride = 2;
  LayerSpec mean = largest;
  mean.kind = LayerKind::average_pool;
  LayerSpec last;
  last.outputs = 4;
  last.topology = Topology::dense;
  last.activation = {-kInfinity, kInfinity};
  return {conv, largest, strided, mean, last};
}

TEST_F(OnGpu, WhatItTrainsRunsThereAndOnTheCpuWithTheSameBits) {
  write_pictures("train", 260, 1);
  write_pictures("t10k", 70, 2);
  RunConfig training;
  training.job = "train";
  training.model = LayersModel{};
  training.input.source = LabelledInput{LabelledInput::Format::mnist, folder_};
  training.devices.resize(1);
  training.devices[0].kind = DeviceKind::cuda;
  training.output = folder_ / "trained";
  training.file = folder_ / "train.json";
  training.train.emplace();
  training.train->layers = convolutional_layers();
  training.train->epochs = 2;
  training.train->batch = 64;
  training.train->optimizer.rate = 0.01;
  Progress progress;
  const RunResult trained = run(training, progress);
  EXPECT_EQ(trained.status, "done");
  EXPECT_GT(trained.peak_device_bytes, 0);
  EXPECT_GT(trained.devices[0].replayed_segments, 0);
  EXPECT_LT(trained.train->epochs[1].train.loss, trained.train->epochs[0].train.loss);

  RunConfig config;
  config.model = FileModel{folder_ / "trained/checkpoints/checkpoint-000002.safetensors"};
  config.input = training.input;
  config.plan.strategy = Strategy::data;
  config.output = folder_ / "out";
  config.file = folder_ / "config.json";
  config.verify.sample_against_reference = 20;
  config.save_outputs = true;
  const RunResult evaluated = expect_as_on_cpu(config);
  ASSERT_TRUE(evaluated.labelled);
  EXPECT_EQ(evaluated.labelled->confusion, trained.labelled->confusion);
  config.plan.strategy = Strategy::model;
  EXPECT_EQ(expect_as_on_cpu(config, "GcG").labelled->confusion, trained.labelled->confusion);
}

TEST_F(OnGpu, LowerPrecisionStaysWithinItsTolerance) {
  std::mt19937_64 random(5);
  const Csr w = test::random_csr({64, 64, 20, Rows::grouped, false}, random);
  for (const Precision precision : {Precision::fp16, Precision::tf32, Precision::bf16}) {
    RunConfig config = make(2, {-0.1F}, {w});
    config.precision = precision;
    config.plan.kernel = fmt::format("spmm_block_mma_{}", to_string(precision));
    config.devices[0].kind = DeviceKind::cuda;
    EXPECT_EQ(checked(config).plan.segments[0].kernels[0][0], config.plan.kernel);
  }
}

}  // namespace
}  // namespace spdnn
