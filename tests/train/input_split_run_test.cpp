// Whole runs with layers split by inputs against those of one rank: losses, checkpoints, rewiring,
// rows that move, and every byte that crosses.
#include <gtest/gtest.h>

#include "layer_splits.hpp"
#include "spdnn/random.hpp"
#include "train/row_runs.hpp"
#include "worker.hpp"

namespace spdnn {
namespace {

using test::cpu_ranks;
using test::expect_near;
using test::made_up_images;
using test::run;
using test::small_spec;

/// Layers split by inputs, counted from 0; all bytes are as predicted.
std::vector<std::size_t> split_by_inputs(const TrainResult& result) {
  std::vector<std::size_t> layers;
  for (std::size_t l = 0; l < result.rows->layers.size(); ++l) {
    const RowTraffic::Layer& layer = result.rows->layers[l];
    if (layer.split == LayerSplit::inputs) layers.push_back(l);
    if (!layer.predicted_forward) continue;
    EXPECT_EQ(layer.forward, layer.predicted_forward) << "layer " << l;
    EXPECT_EQ(layer.backward, layer.predicted_backward) << "layer " << l;
  }
  return layers;
}

TEST(InputSplitRuns, LossesAreThoseOfOneRankAndBytesAsPredicted) {
  TrainSpec spec = small_spec();
  spec.epochs = 9;  // 99 steps
  spec.optimizer.kind = OptimizerKind::momentum;
  spec.optimizer.rate = 0.01;
  spec.optimizer.clip_norm = 2.0;
  spec.validation = 60;
  spec.restore_best = true;
  const TrainResult one = run(spec, 1, 1);
  using Layers = std::vector<std::size_t>;
  for (const auto& [split, by_inputs] : {std::pair(InputSplit::automatic, Layers{2}),
                                         {InputSplit::every_second, Layers{1}},
                                         {InputSplit::never, Layers{}}}) {
    spec.input_split = split;
    for (const auto& [ranks, rows] : {std::pair(2, 2), {3, 3}, {4, 2}}) {
      SCOPED_TRACE(testing::Message() << ranks << " ranks");
      const TrainResult result = run(spec, ranks, rows);
      expect_near(one, result, 1e-4);
      EXPECT_EQ(split_by_inputs(result), by_inputs);
    }
  }
}

TEST(InputSplitRuns, ConvolutionsAndPoolingsGoAlong) {
  TrainSpec spec = test::convolutional_spec();
  spec.layers.insert(spec.layers.begin() + 2, {spec.layers[0], spec.layers[0]});
  spec.layers[3].outputs = 5;
  spec.epochs = 2;
  const TrainResult one = run(spec, 1, 1);
  for (const InputSplit split : {InputSplit::automatic, InputSplit::every_second}) {
    spec.input_split = split;
    for (const int ranks : {2, 3, 5}) {
      const TrainResult result = run(spec, ranks, ranks);
      expect_near(one, result, 1e-4);
      EXPECT_EQ(split_by_inputs(result),
                (split == InputSplit::automatic ? std::vector<std::size_t>{3, 4}
                                                : std::vector<std::size_t>{2, 4}));
      ASSERT_TRUE(result.rows->layers[2].predicted_forward);
    }
  }
}

TEST(InputSplitRuns, CheckpointsGoOnUnderOtherSplitsAndRanks) {
  TrainSpec spec = small_spec();
  spec.optimizer.kind = OptimizerKind::adam;
  spec.epochs = 4;
  test::expect_resumes(
      spec,
      {{1, 1, InputSplit::automatic}, {3, 3, InputSplit::every_second}, {4, 2, InputSplit::never}});
}

/// The first change, after six steps, chooses the same connections.
TEST(InputSplitRuns, ConnectionsComeAndGo) {
  TrainSpec spec = small_spec();
  for (const RewireMethod method : {RewireMethod::set, RewireMethod::rigl}) {
    spec.epochs = 1;
    spec.rewire = {method, 6, 0.3, 0.75};
    spec.input_split = InputSplit::automatic;
    const TrainResult one = run(spec, 1, 1);
    EXPECT_GT(one.epochs[0].rewired, 0);
    spec.input_split = InputSplit::every_second;
    for (const auto& [ranks, rows] : {std::pair(3, 3), {4, 2}}) {
      const TrainResult split = run(spec, ranks, rows);
      expect_near(one, split, 1e-4);
      EXPECT_EQ(split_by_inputs(split), std::vector<std::size_t>{1});
    }
  }
}

/// Rows leave a device that becomes slower, and with them the columns that read what they put out.
TEST(InputSplitRuns, RowsMoveWithTheColumnsThatReadThem) {
  TrainSpec spec = small_spec();
  spec.layers[0].outputs = spec.layers[1].outputs = 256;
  spec.epochs = 3;
  spec.validation = 60;
  spec.restore_best = true;
  spec.optimizer.kind = OptimizerKind::adam;
  const TrainResult one = run(spec, 1, 1);
  std::vector<DeviceSpec> devices = cpu_ranks(4);
  TrainCosts costs = test::invented_costs(spec, devices.size());
  costs.halos.seconds_per_byte = 1e-8;
  TrainHooks hooks;
  hooks.costs = &costs;
  for (DeviceSpec& device : devices) device.slowdown = 2.0;
  devices[1].slowdown_changes = {{10.0, 60.0}};
  spec.split = {SplitKind::profiled, {}};
  spec.model_ranks = 2;
  const TrainResult moved =
      train_network(spec, made_up_images(700, 1), made_up_images(300, 2), devices, hooks);
  EXPECT_EQ(split_by_inputs(moved), std::vector<std::size_t>{2});
  ASSERT_GE(moved.shares.size(), 2U);
  EXPECT_LT(moved.shares.back().rows[1], 0.8 * moved.shares.front().rows[1]);
  expect_near(one, moved, 1e-3);
}

TEST(InputSplitRuns, WhatCanNotBeSplitIsNamed) {
  TrainSpec spec = small_spec();
  spec.input_split = InputSplit::every_second;
  EXPECT_THROW(static_cast<void>(run(spec, 2, 1)), InputError);
  std::vector<DeviceSpec> devices = cpu_ranks(2);
  devices[1].kind = DeviceKind::cuda;
  spec.model_ranks = 2;
  EXPECT_THROW(train::check_input_split(spec, devices), InputError);
  spec.input_split = InputSplit::automatic;
  EXPECT_NO_THROW(train::check_input_split(spec, devices));
}

/// What a plan says of its splits, for three layers whose last puts out less than it reads.
TEST(InputSplitRuns, NotesSayWhichLayersAreSplitAndWhyNoneIs) {
  TrainSpec spec = small_spec();
  TrainProblem problem;
  problem.units = {48, 48, 4};
  problem.halo_bytes = {0.0, 192.0, 192.0, 16.0};
  problem.sum_bytes = {0.0, 192.0, 16.0};
  TrainLayout layout;
  const std::vector<train::TrainLayer> layers(3);
  const auto note = [&](const std::vector<DeviceSpec>& devices) {
    const std::vector<LayerSplit> given = train::given_splits(spec, layers, devices);
    layout.splits = given.empty() ? splits_by_bytes(problem) : given;
    std::vector<std::string> notes;
    train::add_split_note(spec, devices, problem, layout, notes);
    EXPECT_LE(notes.size(), 1U);
    return notes.empty() ? std::string() : notes.front();
  };
  std::vector<DeviceSpec> devices = cpu_ranks(2);
  layout.rows = 2;
  EXPECT_NE(note(devices).find("layers 3 of 3 are split by inputs"), std::string::npos);
  spec.partition.model = "hypergraph";
  EXPECT_NE(note(devices).find("partition"), std::string::npos);
  spec.partition.model = "auto";
  devices[1].kind = DeviceKind::cuda;
  EXPECT_NE(note(devices).find("GPUs"), std::string::npos);
  spec.input_split = InputSplit::never;
  EXPECT_EQ(note(devices), "");
  spec.input_split = InputSplit::every_second;
  devices = cpu_ranks(2);
  EXPECT_NE(note(devices).find("layers 2 of 3"), std::string::npos);
  layout.rows = 1;
  EXPECT_NE(note(devices).find("no layer"), std::string::npos);
}

/// Parameters and state come back as they were, however often rows change hands.
TEST(Repartition, KeepsAllThatBelongsToARow) {
  const TrainSpec spec = small_spec();
  Random random(3, 0);
  std::vector<train::TrainLayer> layers;
  std::vector<train::LayerRows<float>> all;
  std::int64_t inputs = 19;
  for (const std::int64_t outputs : {31, 17, 5}) {
    std::vector<std::int64_t> offsets = {0};
    std::vector<std::uint32_t> indices;
    for (std::int64_t row = 0; row < outputs; ++row) {
      for (std::int64_t col = 0; col < inputs; ++col) {
        if (random.below(4) == 0) indices.push_back(static_cast<std::uint32_t>(col));
      }
      offsets.push_back(std::ssize(indices));
    }
    train::Pattern pattern = outputs == 5 ? train::Pattern::dense(outputs, inputs)
                                          : train::Pattern(outputs, inputs, offsets, indices);
    train::LayerRows<float> rows;
    rows.pattern = pattern;
    for (int array = 0; array < 3; ++array) {  // of adam
      auto& values = rows.values.emplace_back(static_cast<std::size_t>(pattern.nnz()));
      for (float& value : values) value = static_cast<float>(random.between(-1.0, 1.0));
      auto& biases = rows.biases.emplace_back(static_cast<std::size_t>(outputs));
      for (float& bias : biases) bias = static_cast<float>(random.between(-1.0, 1.0));
    }
    all.push_back(rows);
    layers.push_back(train::linear_layer(std::move(pattern), {0.0F, 1.0F}));
    inputs = outputs;
  }
  constexpr LayerSplit kOut = LayerSplit::outputs;
  constexpr LayerSplit kIn = LayerSplit::inputs;
  const std::vector<std::vector<LayerSplit>> all_splits = {
      {}, {kOut, kIn, kOut}, {kOut, kIn, kIn}, {kOut, kOut, kIn}};
  for (int ranks = 1; ranks <= 8; ++ranks) {
    const std::vector<LayerSplit>& splits = all_splits[static_cast<std::size_t>(ranks) % 4];
    run_ranks(ranks, [&](Communicator& comm) {
      const auto device = open_device({});
      const auto stream = device->make_stream();
      train::Worker worker(spec, layers, train_kernels<float>().front(), comm, *device, *stream, 1,
                           splits);
      std::vector<double> shares(static_cast<std::size_t>(ranks), 1.0);
      worker.load_whole(train::split_units(layers, shares), all);
      worker.optimizer().set_progress({7, {}});
      Random dice(5, 0);
      for (int round = 0; round < 4; ++round) {
        std::vector<LayerPartition> next;
        for (const train::TrainLayer& layer : layers) {
          std::vector<std::uint32_t> owners;
          for (std::int64_t unit = 0; unit < layer.units(); ++unit) {
            owners.push_back(dice.below(static_cast<std::uint32_t>(ranks)));
          }
          next.push_back(partition_by_owners(owners, ranks));
        }
        worker.repartition(std::move(next));
      }
      EXPECT_EQ(worker.optimizer().steps(), 7);
      for (std::size_t l = 0; l < layers.size(); ++l) {
        const train::LayerRows<float> rows = worker.gather(l, worker.arrays());
        if (comm.rank() != 0) continue;
        EXPECT_EQ(rows.pattern.row_offsets(), all[l].pattern.row_offsets());
        EXPECT_EQ(rows.pattern.col_indices(), all[l].pattern.col_indices());
        EXPECT_EQ(rows.values, all[l].values);
        EXPECT_EQ(rows.biases, all[l].biases);
      }
    });
  }
}

}  // namespace
}  // namespace spdnn
