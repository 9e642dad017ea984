// Checkpoints: going on from one gives the bits of a run never interrupted; bad ones are refused.
#include "checkpoint.hpp"

#include <gtest/gtest.h>

#include "support/scratch.hpp"
#include "train/images.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using test::cpu_ranks;
using test::made_up_images;
using test::parameters_of;
using test::small_spec;

TrainResult run(const TrainSpec& spec, int ranks = 2) {
  return train_network(spec, made_up_images(500, 1), made_up_images(100, 2), cpu_ranks(ranks), {});
}

fs::path file_of(const TrainSpec& spec, int epoch) {
  return spec.checkpoint.folder / ("checkpoint-00000" + std::to_string(epoch) + ".safetensors");
}

/// Runs all epochs in one go, and again from the checkpoint of an earlier epoch.
void expect_same_end(TrainSpec spec, const fs::path& folder) {
  spec.checkpoint.folder = folder / "whole";
  spec.checkpoint.keep_last = 100;
  const TrainResult whole = run(spec);
  TrainSpec resumed = spec;
  resumed.checkpoint.folder = folder / "resumed";
  resumed.checkpoint.resume = true;
  fs::create_directories(resumed.checkpoint.folder);
  fs::copy(file_of(spec, 2), file_of(resumed, 2));
  const TrainResult end = run(resumed);
  EXPECT_EQ(end.resumed_epochs, 2);
  EXPECT_EQ(parameters_of(end.model), parameters_of(whole.model));
  EXPECT_EQ(end.test.loss, whole.test.loss);
  EXPECT_EQ(test::read_text(file_of(resumed, 5)), test::read_text(file_of(spec, 5)));
}

TEST(Checkpoint, ResumedRunsEndWithTheSameBits) {
  const test::ScratchDir folder;
  TrainSpec spec = small_spec();
  spec.epochs = 5;
  spec.validation = 60;
  spec.schedule = {ScheduleKind::cosine, 1.0, 10, 0.1, 0.0};
  expect_same_end(spec, folder.path() / "adam");
  spec.optimizer.kind = OptimizerKind::nesterov;
  spec.optimizer.rate = 0.02;
  expect_same_end(spec, folder.path() / "nesterov");
  spec.optimizer.kind = OptimizerKind::sgd;
  expect_same_end(spec, folder.path() / "sgd");
  spec.optimizer.kind = OptimizerKind::adamw;
  spec.rewire = {RewireMethod::rigl, 4, 0.3, 0.9};
  expect_same_end(spec, folder.path() / "rigl");
  spec.rewire.method = RewireMethod::set;
  expect_same_end(spec, folder.path() / "set");
}

/// After two epochs the rate is far too large.
TrainSpec spec_that_gets_worse() {
  TrainSpec spec = small_spec();
  spec.epochs = 5;
  spec.validation = 60;
  spec.restore_best = true;
  spec.optimizer.kind = OptimizerKind::sgd;
  spec.optimizer.rate = 0.2;
  spec.optimizer.clip_norm = 1.0;
  spec.schedule = {ScheduleKind::step, 0.0, 2, 100.0, 0.0};
  return spec;
}

TEST(Checkpoint, TheBestEpochIsRestored) {
  const TrainSpec spec = spec_that_gets_worse();
  TrainSpec short_spec = spec;
  short_spec.epochs = 2;
  short_spec.restore_best = false;
  TrainSpec last_spec = spec;
  last_spec.restore_best = false;
  const TrainResult best = run(short_spec);
  const TrainResult last = run(last_spec);
  ASSERT_LT(best.epochs.back().validation->loss, best.epochs.front().validation->loss);
  for (const int ranks : {1, 2}) {
    const TrainResult restored = run(spec, ranks);
    EXPECT_EQ(restored.restored_epoch, 2);
    EXPECT_NE(parameters_of(restored.model), parameters_of(last.model));
    if (ranks == 2) {
      EXPECT_EQ(parameters_of(restored.model), parameters_of(best.model));
    }
    EXPECT_NEAR(restored.test.loss, best.test.loss, 1e-5);
  }
  EXPECT_EQ(last.restored_epoch, 0);
  TrainSpec rows = spec;
  rows.model_ranks = 2;
  EXPECT_NEAR(run(rows).test.loss, best.test.loss, 1e-4);
}

TEST(Checkpoint, TheBestEpochSurvivesAResume) {
  const test::ScratchDir folder;
  TrainSpec spec = spec_that_gets_worse();
  spec.rewire = {RewireMethod::set, 4, 0.3, 0.9};
  spec.checkpoint.folder = folder.path() / "whole";
  spec.checkpoint.keep_last = 1;
  const TrainResult whole = run(spec);
  ASSERT_EQ(whole.restored_epoch, 2);
  const auto best_of = [](const TrainSpec& of, int epoch) {
    return of.checkpoint.folder / ("best-00000" + std::to_string(epoch) + ".safetensors");
  };
  EXPECT_FALSE(fs::exists(best_of(spec, 1)));
  EXPECT_TRUE(fs::exists(best_of(spec, 2)));
  spec.checkpoint.resume = true;  // all epochs are done: what is left is to restore the best
  const TrainResult resumed = run(spec);
  EXPECT_EQ(resumed.resumed_epochs, 5);
  EXPECT_EQ(resumed.restored_epoch, 2);
  EXPECT_EQ(parameters_of(resumed.model), parameters_of(whole.model));
  fs::remove(best_of(spec, 2));
  EXPECT_THROW(static_cast<void>(run(spec)), InputError);
}

/// A run that stopped early does so again when it is resumed, without another epoch.
TEST(Checkpoint, ResumedRunsStopWhereTheyStopped) {
  const test::ScratchDir folder;
  TrainSpec spec = spec_that_gets_worse();
  spec.epochs = 50;
  spec.patience = 3;
  spec.checkpoint.folder = folder.path();
  const TrainResult whole = run(spec);
  ASSERT_TRUE(whole.stopped_early);
  spec.checkpoint.resume = true;
  const TrainResult resumed = run(spec);
  EXPECT_TRUE(resumed.stopped_early);
  EXPECT_TRUE(resumed.epochs.empty());
  EXPECT_EQ(resumed.restored_epoch, whole.restored_epoch);
  EXPECT_EQ(parameters_of(resumed.model), parameters_of(whole.model));
}

TEST(Checkpoint, OnlyTheNewestAreKept) {
  const test::ScratchDir folder;
  TrainSpec spec = small_spec();
  spec.epochs = 5;
  spec.checkpoint.folder = folder.path() / "made" / "on the way";
  spec.checkpoint.keep_last = 2;
  static_cast<void>(run(spec));
  EXPECT_FALSE(fs::exists(file_of(spec, 3)));
  EXPECT_TRUE(fs::exists(file_of(spec, 4)));
  EXPECT_TRUE(fs::exists(file_of(spec, 5)));
  // A shorter run in the same folder replaces what the longer one left.
  spec.epochs = 1;
  static_cast<void>(run(spec));
  EXPECT_TRUE(fs::exists(file_of(spec, 1)));
  EXPECT_FALSE(fs::exists(file_of(spec, 5)));
}

TEST(Checkpoint, DamagedOnesAreRefusedAndTheOneBeforeIsUsed) {
  const test::ScratchDir folder;
  TrainSpec spec = small_spec();
  spec.epochs = 3;
  spec.checkpoint.folder = folder.path();
  spec.checkpoint.keep_last = 3;
  const TrainResult whole = run(spec);
  const std::string good = test::read_text(file_of(spec, 3));
  std::string flipped = good;
  flipped[flipped.size() * 3 / 4] = static_cast<char>(flipped[flipped.size() * 3 / 4] ^ 4);
  spec.checkpoint.resume = true;
  for (const std::string& bad : {good.substr(0, good.size() / 2), flipped, std::string()}) {
    test::write_text(file_of(spec, 3), bad);
    const TrainResult resumed = run(spec);
    EXPECT_EQ(resumed.resumed_epochs, 2);
    ASSERT_EQ(resumed.notes.size(), 1U);
    EXPECT_NE(resumed.notes[0].find("checkpoint-000003"), std::string::npos) << resumed.notes[0];
    EXPECT_EQ(parameters_of(resumed.model), parameters_of(whole.model));
    EXPECT_EQ(test::read_text(file_of(spec, 3)), good);
  }
}

TEST(Checkpoint, ThoseOfAnotherConfigurationAreRefused) {
  const test::ScratchDir folder;
  TrainSpec spec = small_spec();
  spec.epochs = 1;
  spec.checkpoint.folder = folder.path();
  static_cast<void>(run(spec));
  const std::string before = test::read_text(file_of(spec, 1));
  spec.fingerprint = "another";
  spec.checkpoint.resume = true;
  try {
    static_cast<void>(run(spec));
    FAIL() << "a checkpoint of another configuration was used";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("another configuration"), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(test::read_text(file_of(spec, 1)), before);
}

TEST(Checkpoint, WhatIsAnotherInAConfigurationIsNamed) {
  const test::ScratchDir folder;
  TrainSpec spec = small_spec();
  spec.epochs = 1;
  spec.checkpoint.folder = folder.path();
  spec.fingerprint = R"({"seed": 1, "train": {"batch": 8, "epochs": 1}})";
  static_cast<void>(run(spec));
  spec.checkpoint.resume = true;
  spec.fingerprint = R"({"seed": 1, "train": {"batch": 8, "epochs": 2, "patience": 3}})";
  try {
    static_cast<void>(run(spec));
    FAIL() << "a checkpoint of another configuration was used";
  } catch (const InputError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("/train/epochs was 1 and is 2"), std::string::npos) << text;
    EXPECT_NE(text.find("/train/patience was not there and is 3"), std::string::npos) << text;
    EXPECT_EQ(text.find("batch"), std::string::npos) << text;
    EXPECT_NE(text.find("/train/start_from"), std::string::npos) << text;
  }
}

TEST(Checkpoint, NothingToResumeStartsAnewAndSaysSo) {
  const test::ScratchDir folder;
  TrainSpec spec = small_spec();
  spec.epochs = 1;
  spec.checkpoint.folder = folder.path() / "none";
  spec.checkpoint.resume = true;
  EXPECT_EQ(run(spec).notes.size(), 1U);
}

/// Dense layers are trained, then their largest weights alone.
TEST(Checkpoint, PruningStartsFromADenseOne) {
  const test::ScratchDir folder;
  TrainSpec spec = small_spec();
  for (LayerSpec& layer : spec.layers) layer.topology = Topology::dense;
  spec.checkpoint.folder = folder.path() / "dense";
  static_cast<void>(run(spec));
  TrainSpec pruned = small_spec();
  pruned.epochs = 2;
  for (std::size_t l = 0; l < 2; ++l) pruned.layers[l].topology = Topology::magnitude;
  pruned.start_from = file_of(spec, 6);
  const TrainResult result = run(pruned);
  EXPECT_EQ(result.layers[1].connections, std::llround(0.2 * 48 * 48));
  EXPECT_GT(result.test.accuracy(), 0.95);
}

}  // namespace
}  // namespace spdnn
