// Training with the rows of the network divided between ranks, whole runs against those of one
// rank.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "step_cost.hpp"
#include "support/scratch.hpp"
#include "train/row_runs.hpp"

namespace spdnn {
namespace {

using test::cpu_ranks;
using test::expect_near;
using test::made_up_images;
using test::parameters_of;
using test::run;
using test::small_spec;

TEST(RowStrategies, LossesAreThoseOfOneRank) {
  TrainSpec spec = small_spec();
  spec.epochs = 9;  // 99 steps
  spec.optimizer.kind = OptimizerKind::momentum;
  spec.optimizer.rate = 0.01;
  spec.optimizer.clip_norm = 2.0;
  spec.validation = 60;
  const TrainResult one = run(spec, 1, 1);
  for (int ranks = 2; ranks <= 4; ++ranks) expect_near(one, run(spec, ranks, ranks), 1e-4);
  expect_near(one, run(spec, 4, 2), 1e-4);
  spec.split = {SplitKind::ratios, {1.0, 5.0, 0.0}};
  expect_near(one, run(spec, 3, 3), 1e-4);
}

TEST(RowStrategies, EveryNumberOfRanks) {
  TrainSpec spec = small_spec();
  spec.epochs = 1;
  const TrainResult one = run(spec, 1, 1);
  for (int ranks = 5; ranks <= 8; ++ranks) expect_near(one, run(spec, ranks, ranks), 1e-4);
  expect_near(one, run(spec, 6, 2), 1e-4);
  expect_near(one, run(spec, 6, 3), 1e-4);
}

TEST(RowStrategies, RewiredNetworksLearnAndKeepTheirConnections) {
  TrainSpec spec = small_spec();
  for (const RewireMethod method : {RewireMethod::set, RewireMethod::rigl}) {
    spec.rewire = {method, 5, 0.3, 0.75};
    const TrainResult one = run(spec, 1, 1);
    for (const auto& [ranks, rows] : {std::pair(3, 3), std::pair(4, 2)}) {
      const TrainResult split = run(spec, ranks, rows);
      EXPECT_GT(split.test.accuracy(), 0.95);
      for (std::size_t l = 0; l < one.layers.size(); ++l) {
        EXPECT_EQ(split.layers[l].connections, one.layers[l].connections);
      }
      for (std::size_t e = 0; e < one.epochs.size(); ++e) {
        EXPECT_EQ(split.epochs[e].rewired, one.epochs[e].rewired);
      }
      EXPECT_EQ(parameters_of(split.model), parameters_of(run(spec, ranks, rows).model));
    }
    // The first change, after five steps, chooses the same connections.
    spec.epochs = 1;
    spec.rewire.every = 10;
    expect_near(run(spec, 1, 1), run(spec, 3, 3), 1e-4);
    spec.epochs = 6;
  }
}

TEST(RowStrategies, CheckpointsGoOnOnOtherRanksAndStrategies) {
  TrainSpec spec = small_spec();
  spec.epochs = 6;
  spec.optimizer.kind = OptimizerKind::adam;
  test::expect_resumes(spec, {{1, 1}, {3, 3}, {4, 2}, {2, 1}});
}

/// Images and rows by ratios; a rank of ratio 0, were it the first, has no part.
TEST(RowStrategies, GridsByRatiosTrainTheSame) {
  TrainSpec spec = small_spec();
  spec.epochs = 2;
  const TrainResult one = run(spec, 1, 1);
  spec.split = {SplitKind::ratios, {1.0, 6.0, 2.0, 3.0}};
  const TrainResult four = run(spec, 4, 2);
  expect_near(one, four, 1e-4);
  // Groups of ranks 1 and 2, and of 3 and 0: 48 and 24 images of 64 in grains of 8.
  EXPECT_EQ(four.shares.front().images, (std::vector<std::int64_t>{24, 40, 40, 24}));
  EXPECT_GT(four.shares.front().rows[1], four.shares.front().rows[2]);
  EXPECT_EQ(four.shares.front().rows[1], four.shares.front().rows[3]);
  spec.split.ratios.insert(spec.split.ratios.begin(), 0.0);
  const TrainResult five = run(spec, 5, 2);
  EXPECT_EQ(parameters_of(five.model), parameters_of(four.model));
  EXPECT_EQ(five.rank_seconds[0], 0.0);
  EXPECT_EQ(five.rank_images[0], 0);
  EXPECT_THROW(static_cast<void>(run(spec, 5, 3)), InputError);
}

/// A slowed rank is late with what others read of it, and nothing else changes.
TEST(RowStrategies, SlowedRanksComputeTheSame) {
  TrainSpec spec = small_spec();
  spec.epochs = 2;
  const LabelledImages images = made_up_images(700, 1);
  for (const auto& [ranks, rows] : {std::pair(3, 3), std::pair(4, 2)}) {
    spec.model_ranks = rows;
    std::vector<DeviceSpec> devices = cpu_ranks(ranks);
    const TrainResult even = train_network(spec, images, {}, devices, {});
    devices[0].slowdown = 100.0;
    devices[1].slowdown_changes = {{5.0, 30.0}, {9.0, 1.0}};
    const TrainResult slowed = train_network(spec, images, {}, devices, {});
    EXPECT_EQ(parameters_of(slowed.model), parameters_of(even.model));
    EXPECT_GT(slowed.rank_seconds[0], even.rank_seconds[0]);
  }
}

/// Two layers of 256 rows and a few of the last, planned by invented costs.
struct UnlikeDevices {
  explicit UnlikeDevices(int ranks) : devices(cpu_ranks(ranks)) {
    spec.layers[0].outputs = spec.layers[1].outputs = 256;
    spec.layers[0].density = spec.layers[1].density = 0.5;
    spec.epochs = 1;
    costs = test::invented_costs(spec, devices.size());
    hooks.costs = &costs;
  }
  TrainResult train(int model_ranks) {
    spec.split = {SplitKind::profiled, {}};
    spec.model_ranks = model_ranks;
    return train_network(spec, images, {}, devices, hooks);
  }
  [[nodiscard]] TrainResult train_on_one() const {
    TrainSpec one = spec;
    one.split = {SplitKind::even, {}};
    one.model_ranks = 1;
    return train_network(one, images, {}, cpu_ranks(1), {});
  }

  TrainSpec spec = small_spec();
  LabelledImages images = made_up_images(700, 1);
  std::vector<DeviceSpec> devices;
  TrainCosts costs;
  TrainHooks hooks;
};

/// Devices of unlike speed get rows accordingly, and the network is trained all the same.
TEST(RowStrategies, UnlikeDevicesGetRowsBySpeed) {
  for (const auto& [ranks, rows] : {std::pair(3, 3), std::pair(4, 2)}) {
    UnlikeDevices unlike(ranks);
    unlike.spec.batch = 256;  // images for both groups of the grid
    unlike.spec.rebalance = false;
    unlike.devices[0].slowdown = 4.0;
    const TrainResult result = unlike.train(rows);
    ASSERT_EQ(result.shares.size(), 1U);
    const std::vector<double>& parts = result.shares.front().rows;
    ASSERT_EQ(std::ssize(parts), ranks);
    // In the grid the others with its number in their groups hold the same rows.
    EXPECT_NEAR(parts[0] / parts[1], 0.25, 0.02);
    EXPECT_NEAR(std::accumulate(parts.begin(), parts.end(), 0.0), ranks / rows, 1e-9);
    expect_near(unlike.train_on_one(), result, 1e-4);
  }
}

/// Weights, the optimiser's state and the best epoch's weights move with their rows. The device
/// becomes so slow that no other work on the machine hides it.
TEST(RowStrategies, RowsLeaveADeviceThatBecomesSlower) {
  UnlikeDevices unlike(4);
  unlike.spec.epochs = 3;
  unlike.spec.validation = 60;
  unlike.spec.optimizer.kind = OptimizerKind::adam;
  for (DeviceSpec& device : unlike.devices) device.slowdown = 2.0;
  unlike.devices[1].slowdown_changes = {{10.0, 60.0}};
  const TrainResult result = unlike.train(2);
  ASSERT_GE(result.shares.size(), 2U);
  EXPECT_LT(result.shares.back().rows[1], 0.8 * result.shares.front().rows[1]);
  expect_near(unlike.train_on_one(), result, 1e-3);
}

TEST(RowStrategies, ADeviceThatOnlyHoldsOthersUpHasNoRows) {
  UnlikeDevices unlike(3);
  unlike.spec.rebalance = false;
  unlike.devices[0].slowdown = 200.0;
  // Worth less than what it takes to tell one rank more.
  unlike.costs.halos.latency_s = 2e-5;
  const TrainResult result = unlike.train(3);
  ASSERT_EQ(result.shares.front().rows.size(), 3U);
  EXPECT_EQ(result.shares.front().rows[0], 0.0);
  EXPECT_EQ(result.rank_seconds[0], 0.0) << "the first rank has no part in the steps";
  EXPECT_NE(result.notes.back().find("rank 1 writes"), std::string::npos);
  EXPECT_GT(result.shares.front().rows[1], 0.0);
  EXPECT_GT(result.shares.front().rows[2], 0.0);
  expect_near(unlike.train_on_one(), result, 1e-4);
}

/// Without a strategy, what is measured decides; whatever that is, training is the same. Devices
/// that are alike share images.
TEST(RowStrategies, TheStrategyIsChosenByWhatIsMeasured) {
  TrainSpec spec = small_spec();
  spec.epochs = 1;
  const TrainResult one = run(spec, 1, 1);
  spec.split = {SplitKind::profiled, {}};
  EXPECT_EQ(parameters_of(run(spec, 4, 0).model), parameters_of(run(spec, 4, 1).model));
  spec.rebalance = true;
  expect_near(one, run(spec, 3, 0), 1e-4);
}

/// Who leads must be where the first rank is; else that one goes with the others.
TEST(Leaders, AreInTheProcessOfTheFirstRank) {
  TrainLayout grid;
  grid.rows = 2;
  grid.places = {-1, 2, 0, 3, 1};
  grid.images = {10, 20};
  grid.units = {{5, 7}};
  TrainLayout led = grid;
  EXPECT_NE(train::choose_leader(led, {true, true, false, false, false}).find("rank 1"),
            std::string::npos);
  EXPECT_EQ(led.places, (std::vector<std::int64_t>{-1, 0, 2, 1, 3}));
  EXPECT_EQ(led.images, (std::vector<std::int64_t>{20, 10}));
  EXPECT_EQ(led.units, grid.units);
  EXPECT_THROW(static_cast<void>(train::choose_leader(grid, {true, false, false, false, false})),
               InputError);
  TrainLayout data;
  data.places = {-1, 0, 1};
  data.images = {10, 20};
  data.units = {{5}};
  EXPECT_FALSE(train::choose_leader(data, {true, false, false}).empty());
  EXPECT_EQ(data.places, (std::vector<std::int64_t>{0, 1, 2}));
  EXPECT_EQ(data.images, (std::vector<std::int64_t>{0, 10, 20}));
  TrainLayout rows = grid;
  rows.places = {-1, 1, 0};
  rows.images = {30};
  EXPECT_FALSE(train::choose_leader(rows, {true, false, false}).empty());
  EXPECT_EQ(rows.places, (std::vector<std::int64_t>{0, 2, 1}));
  EXPECT_EQ(rows.units, (std::vector<std::vector<std::int64_t>>{{0, 5, 7}}));
  EXPECT_EQ(train::choose_leader(rows, {true, false, false}), "") << "the first rank leads itself";
}

TEST(RowStrategies, GroupsThatDoNotFitAreNamed) {
  EXPECT_THROW(static_cast<void>(run(small_spec(), 3, 2)), InputError);
}

/// Losses do not depend on who owns which rows, and what crosses is what the partition said.
TEST(ChosenPartitions, SendWhatTheyPredict) {
  TrainSpec spec = small_spec();
  spec.epochs = 2;
  spec.validation = 60;
  const TrainResult one = run(spec, 1, 1);
  EXPECT_FALSE(one.rows);
  const test::ScratchDir folder;
  const Model model = initial_network(spec, made_up_images(700, 1));
  for (const std::string name : {"auto", "cyclic", "hypergraph", "file"}) {
    SCOPED_TRACE(name);
    spec.partition = {name, {}, 1};
    for (const auto& [ranks, rows] : {std::pair(3, 3), std::pair(4, 2)}) {
      if (name == "file") {
        spec.partition.file = folder.path() / "rows.part";
        write_partition(spec.partition.file, random_partition(model, rows, 5));
      }
      const TrainResult split = run(spec, ranks, rows);
      expect_near(one, split, 1e-4);
      ASSERT_TRUE(split.rows);
      EXPECT_EQ(split.rows->parts, rows);
      EXPECT_EQ(split.rows->partition, name == "file" ? "rows.part" : name);
      std::int64_t bytes = 0;
      for (const RowTraffic::Layer& layer : split.rows->layers) {
        EXPECT_EQ(layer.forward, layer.predicted_forward);
        EXPECT_EQ(layer.backward, layer.predicted_backward);
        bytes += layer.forward;
      }
      EXPECT_GT(bytes, 0);
    }
  }
}

TEST(ChosenPartitions, OfOtherNetworksOrLayersAreErrors) {
  TrainSpec spec = small_spec();
  const test::ScratchDir folder;
  const Model model = initial_network(spec, made_up_images(700, 1));
  spec.partition = {"file", folder.path() / "rows.part", 1};
  EXPECT_THROW(static_cast<void>(run(spec, 2, 2)), InputError);  // there is none
  EXPECT_THROW(static_cast<void>(run(spec, 2, 1)), InputError);  // and no rows to divide
  write_partition(spec.partition.file, cyclic_partition(model, 3));
  EXPECT_THROW(static_cast<void>(run(spec, 2, 2)), InputError);
  write_partition(spec.partition.file, cyclic_partition(model, 2));
  spec.seed = 2;  // other connections
  EXPECT_THROW(static_cast<void>(run(spec, 2, 2)), InputError);
  spec = test::convolutional_spec();
  spec.partition.model = "cyclic";
  EXPECT_THROW(static_cast<void>(run(spec, 2, 2)), InputError);
}

/// A rewired network's checkpoint goes on under the partition of the network as it began.
TEST(ChosenPartitions, AreKeptWhereConnectionsChange) {
  TrainSpec spec = small_spec();
  const test::ScratchDir folder;
  spec.checkpoint.folder = folder.path();
  spec.rewire = {RewireMethod::set, 5, 0.3, 0.75};
  spec.partition.file = folder.path() / "rows.part";
  spec.partition.model = "file";
  write_partition(spec.partition.file,
                  random_partition(initial_network(spec, made_up_images(700, 1)), 2, 5));
  spec.epochs = 2;
  static_cast<void>(run(spec, 2, 2));
  spec.epochs = 4;
  spec.checkpoint.resume = true;
  const TrainResult resumed = run(spec, 2, 2);
  EXPECT_EQ(resumed.resumed_epochs, 2);
  EXPECT_FALSE(resumed.rows->layers[1].predicted_forward);
  EXPECT_GT(resumed.rows->layers[1].forward, 0);
}

}  // namespace
}  // namespace spdnn
