// What a good configuration becomes, and what `--set` and the path rules do.
#include <gtest/gtest.h>

#include "folder.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

class LoadConfig : public test::ConfigTest {};

TEST_F(LoadConfig, FillsInEveryDefault) {
  const RunConfig c = load(with(""));
  EXPECT_EQ(c.job, "infer");
  const auto& model = std::get<RadixNetModel>(c.model);
  EXPECT_EQ(model.spec.neurons, 1024);
  EXPECT_EQ(model.spec.layers, 6);
  EXPECT_EQ(model.spec.fold, 16);
  EXPECT_EQ(model.spec.weight, 0.0625F);
  EXPECT_EQ(model.spec.seed, 1U);
  EXPECT_FALSE(model.bias.has_value());
  EXPECT_EQ(model.clip, 32.0F);
  EXPECT_EQ(std::get<DigitsInput>(c.input.source).images, 1000);
  EXPECT_EQ(c.input.repeat, 1);
  EXPECT_EQ(c.verify.categories, VerifyCategories::automatic);
  EXPECT_TRUE(c.verify.truth.empty());
  EXPECT_EQ(c.verify.sample_against_reference, 64);
  EXPECT_TRUE(c.devices.empty());
  EXPECT_EQ(c.plan.strategy, Strategy::automatic);
  EXPECT_EQ(c.plan.split.kind, SplitKind::profiled);
  EXPECT_EQ(c.plan.kernel, "auto");
  EXPECT_FALSE(c.plan.batch.has_value());
  EXPECT_FALSE(c.partition.chosen());
  EXPECT_EQ(c.compile, "off");
  EXPECT_FALSE(c.compile_seconds.has_value());
  EXPECT_FALSE(c.compile_cache.has_value());
  EXPECT_TRUE(c.deduplicate_images);
  EXPECT_EQ(c.precision, Precision::fp32);
  EXPECT_FALSE(c.memory_limit.has_value());
  EXPECT_EQ(c.seed, 1U);
  EXPECT_TRUE(c.cache);
  EXPECT_FALSE(c.save_outputs);
  EXPECT_FALSE(c.require.verified || c.require.max_infer_seconds ||
               c.require.min_nominal_edges_per_s || c.require.max_host_bytes);
  EXPECT_EQ(c.output, fs::path("results/c"));
  EXPECT_EQ(c.file, folder_ / "c.json");
  EXPECT_TRUE(c.data_dir.empty());
}

TEST_F(LoadConfig, ReadsEveryKey) {
  const RunConfig c = load(R"({
    "$schema": "schema.json", "job": "infer",
    "model": {"graph_challenge": {"neurons": 2048, "layers": 3, "bias": -0.5, "clip": 8}},
    "input": {"graph_challenge": {"images": 7}, "repeat": 3},
    "verify": {"categories": true, "sample_against_reference": 0},
    "devices": [{"cuda": 1, "slowdown": 2.5, "sms": 44}, {"cpu": {"threads": 2, "slowdown": 3, "cores": [4, 5]}},
                {"cpu": {}}],
    "strategy": "task_stealing", "split": [1, 0, 2.5], "kernel": "panel", "compile": ["unread", "fold"],
    "compile_seconds": 2.5, "compile_cache": false, "deduplicate_images": false, "precision": "bf16", "batch": 128, "memory_limit": "1.5 GiB",
    "seed": 9223372036854775807, "cache": false, "save_outputs": true,
    "require": {"verified": true, "max_infer_seconds": 2, "min_nominal_edges_per_s": 1e9,
                "max_host_bytes": "4GB"},
    "output": "out"})");
  const auto& model = std::get<GraphChallengeModel>(c.model);
  EXPECT_EQ(model.neurons, 2048);
  EXPECT_EQ(model.layers, 3);
  EXPECT_EQ(model.bias, -0.5F);
  EXPECT_EQ(model.clip, 8.0F);
  EXPECT_EQ(std::get<GraphChallengeInput>(c.input.source).images, 7);
  EXPECT_EQ(c.input.repeat, 3);
  EXPECT_EQ(c.verify.categories, VerifyCategories::required);
  EXPECT_EQ(c.verify.sample_against_reference, 0);
  ASSERT_EQ(c.devices.size(), 3U);
  EXPECT_EQ(c.devices[0].kind, DeviceKind::cuda);
  EXPECT_EQ(c.devices[0].index, 1);
  EXPECT_EQ(c.devices[0].slowdown, 2.5);
  EXPECT_EQ(c.devices[0].sms, 44);
  EXPECT_EQ(c.devices[1].kind, DeviceKind::cpu);
  EXPECT_EQ(c.devices[1].threads, 2);
  EXPECT_EQ(c.devices[1].slowdown, 3.0);
  EXPECT_EQ(c.devices[1].cores, (std::vector<int>{4, 5}));
  EXPECT_EQ(c.devices[2].threads, 1);
  EXPECT_EQ(c.devices[2].slowdown, 1.0);
  EXPECT_EQ(c.plan.strategy, Strategy::task_stealing);
  EXPECT_EQ(c.plan.split.kind, SplitKind::ratios);
  EXPECT_EQ(c.plan.split.ratios, (std::vector<double>{1.0, 0.0, 2.5}));
  EXPECT_EQ(c.plan.kernel, "panel");
  EXPECT_EQ(c.plan.batch, 128);
  EXPECT_EQ(c.compile, "unread,fold");
  EXPECT_EQ(c.compile_seconds, 2.5);
  EXPECT_EQ(c.compile_cache, false);
  EXPECT_EQ(c.precision, Precision::bf16);
  EXPECT_FALSE(c.deduplicate_images);
  EXPECT_EQ(c.memory_limit, 1610612736);
  EXPECT_EQ(c.seed, 9223372036854775807U);
  EXPECT_FALSE(c.cache);
  EXPECT_TRUE(c.save_outputs);
  EXPECT_EQ(c.require.verified, true);
  EXPECT_EQ(c.require.max_infer_seconds, 2.0);
  EXPECT_EQ(c.require.min_nominal_edges_per_s, 1e9);
  EXPECT_EQ(c.require.max_host_bytes, 4'000'000'000);
  EXPECT_EQ(c.output, fs::path("out"));
}

TEST_F(LoadConfig, SlowdownsMayChange) {
  const RunConfig c = load(with(R"("devices": [
    {"cpu": {"slowdown_by": "seconds", "slowdown": [[0, 2], [1.5, 6]]}},
    {"cuda": 0, "slowdown_by": "seconds", "slowdown": [[3, 4]]}])"));
  EXPECT_EQ(c.devices[0].slowdown, 2.0);
  EXPECT_TRUE(c.devices[0].slowdown_by_seconds);
  ASSERT_EQ(c.devices[0].slowdown_changes.size(), 1U);
  EXPECT_EQ(c.devices[0].slowdown_changes[0].at, 1.5);
  EXPECT_EQ(c.devices[0].slowdown_changes[0].factor, 6.0);
  EXPECT_EQ(c.devices[1].slowdown, 1.0);
  EXPECT_EQ(c.devices[1].slowdown_changes[0].factor, 4.0);
}

TEST_F(LoadConfig, ReadsEveryStrategy) {
  const std::vector<std::pair<std::string, Strategy>> all{
      {"auto", Strategy::automatic},
      {"data", Strategy::data},
      {"model", Strategy::model},
      {"data_then_model", Strategy::data_then_model},
      {"task_manager", Strategy::task_manager},
      {"task_stealing", Strategy::task_stealing},
      {"grid", Strategy::grid}};
  for (const auto& [name, strategy] : all) {
    EXPECT_EQ(load(with(""), {"/strategy=" + name}).plan.strategy, strategy) << name;
  }
}

TEST_F(LoadConfig, ReadsGroupsOfAGrid) {
  EXPECT_EQ(load(with("")).plan.model_ranks, 2);
  EXPECT_EQ(load(with(R"("strategy": "grid", "model_ranks": 3)")).plan.model_ranks, 3);
}

TEST_F(LoadConfig, ReadsLevelsOfCompile) {
  for (const char* level : {"off", "safe", "full"}) {
    EXPECT_EQ(load(with(std::string(R"("compile": ")") + level + '"')).compile, level);
  }
}

TEST_F(LoadConfig, ReadsFileModelAndInput) {
  write("net.spdnn", "x");
  write("in.spdnn", "x");
  const RunConfig c = load(R"({
    "model": {"path": "net.spdnn", "bias": [0.5, -1], "activation": "identity", "clip": 6},
    "input": {"path": "in.spdnn", "images": 3}})");
  const auto& model = std::get<FileModel>(c.model);
  EXPECT_EQ(model.path, folder_ / "net.spdnn");
  EXPECT_EQ(model.settings.bias, (std::vector<float>{0.5F, -1.0F}));
  EXPECT_EQ(model.settings.activation, std::vector{Activation::identity});
  EXPECT_EQ(model.settings.clip, std::vector{6.0F});
  EXPECT_FALSE(model.settings.format.has_value());
  EXPECT_EQ(std::get<FileInput>(c.input.source).images, 3);
  const RunConfig plain =
      load(R"({"model": {"path": "net.spdnn"}, "input": {"path": "in.spdnn"}})");
  const NetworkSettings& nothing = std::get<FileModel>(plain.model).settings;
  EXPECT_TRUE(nothing.bias.empty() && nothing.activation.empty() && nothing.clip.empty());
}

TEST_F(LoadConfig, ReadsWhatTrainingStores) {
  write("set/any", "x");
  const std::string network = R"({"job": "train", "input": {"mnist": "set"},
    "model": {"layers": [{"outputs": 10, "density": 0.5}]}, )";
  const RunConfig wide = load(network + R"("train": {}})");
  EXPECT_EQ(wide.train->precision, Precision::fp32);
  const RunConfig c = load(network + R"("precision": "fp16",
    "train": {"loss_scale": {"first": 1024, "every_steps": 7}}})");
  EXPECT_EQ(c.train->precision, Precision::fp16);
  EXPECT_EQ(c.train->loss_scale.first, 1024.0F);
  EXPECT_EQ(c.train->loss_scale.every, 7);
  EXPECT_NE(c.train->fingerprint, load(network + R"("precision": "bf16",
    "train": {"loss_scale": {"first": 1024, "every_steps": 7}}})")
                                      .train->fingerprint);
}

TEST_F(LoadConfig, ReadsANetworkOfOneFileALayer) {
  write("l1.txt", "x");
  const RunConfig c = load(R"({"input": {"digits": {}},
    "model": {"path": "l{}.txt", "format": "tsv", "neurons": [784, 100, 10], "bias": -1,
              "activation": ["relu", "identity"], "clip": [6, "none"]}})");
  const auto& model = std::get<FileModel>(c.model);
  EXPECT_EQ(model.path, folder_ / "l{}.txt");
  EXPECT_EQ(model.settings.format, NetworkFormat::tsv);
  EXPECT_EQ(model.settings.neurons, (std::vector<std::int64_t>{784, 100, 10}));
  EXPECT_EQ(model.settings.bias, std::vector{-1.0F});
  EXPECT_EQ(model.settings.activation, (std::vector{Activation::relu, Activation::identity}));
  EXPECT_EQ(model.settings.clip, (std::vector{6.0F, std::numeric_limits<float>::infinity()}));
}

TEST_F(LoadConfig, ReadsIdxInputAndTruth) {
  write("images.gz", "x");
  write("truth.tsv", "x");
  const RunConfig c = load(R"({"model": {"radixnet": {"neurons": 1024, "layers": 6}},
    "input": {"idx": {"path": "images.gz"}}, "verify": {"truth": "truth.tsv"}})");
  EXPECT_EQ(std::get<IdxInput>(c.input.source).path, folder_ / "images.gz");
  EXPECT_FALSE(std::get<IdxInput>(c.input.source).images.has_value());
  EXPECT_EQ(c.verify.truth, folder_ / "truth.tsv");
}

TEST_F(LoadConfig, LooksInTheDataDirectoryFirst) {
  const std::string text = R"({"model": {"path": "net.spdnn"}, "input": {"digits": {}}})";
  const fs::path file = write("c.json", text);
  const fs::path beside = write("net.spdnn", "beside");
  const fs::path in_data = write("data/net.spdnn", "data");
  const fs::path in_other = write("other/net.spdnn", "other");
  const auto found = [&](const ConfigOverrides& overrides) {
    return std::get<FileModel>(load_config(file, overrides).model).path;
  };
  ConfigOverrides overrides;
  EXPECT_EQ(found(overrides), beside);
  ASSERT_EQ(setenv("SPDNN_DATA", (folder_ / "data").c_str(), 1), 0);
  EXPECT_EQ(found(overrides), in_data);
  overrides.data_dir = folder_ / "other";
  EXPECT_EQ(found(overrides), in_other);
  fs::remove(in_other);
  EXPECT_EQ(found(overrides), beside);
  unsetenv("SPDNN_DATA");
}

TEST_F(LoadConfig, OutputOfTheCommandLineWins) {
  ConfigOverrides overrides;
  overrides.output = "elsewhere";
  const fs::path file = write("c.json", with(R"("output": "out")"));
  EXPECT_EQ(load_config(file, overrides).output, fs::path("elsewhere"));
}

TEST_F(LoadConfig, ToleratesAByteOrderMark) {
  EXPECT_EQ(load("\xEF\xBB\xBF" + with(R"("batch": 5)")).plan.batch, 5);
}

TEST_F(LoadConfig, TakesIntegersWrittenAsFloats) {
  EXPECT_EQ(load(with(R"("batch": 1e3)")).plan.batch, 1000);
  EXPECT_EQ(load(with(R"("batch": 2.0)")).plan.batch, 2);
}

TEST_F(LoadConfig, ReadsSizes) {
  const std::vector<std::pair<std::string, std::int64_t>> sizes{{"1", 1},
                                                                {"8GB", 8'000'000'000},
                                                                {"512MiB", 536'870'912},
                                                                {"10kB", 10'000},
                                                                {"10 KB", 10'000},
                                                                {"2KiB", 2048},
                                                                {"1.5MB", 1'500'000},
                                                                {"3B", 3},
                                                                {"1TB", 1'000'000'000'000},
                                                                {"1TiB", 1'099'511'627'776},
                                                                {"2GiB", 2'147'483'648}};
  for (const auto& [text, bytes] : sizes) {
    EXPECT_EQ(load(with(""), {"/memory_limit=" + text}).memory_limit, bytes) << text;
  }
  EXPECT_FALSE(load(with(""), {"/memory_limit=auto"}).memory_limit.has_value());
}

TEST_F(LoadConfig, SetTakesJsonOrABareWord) {
  const RunConfig c = load(with(""), {"/batch=64", "/strategy=data", "/split=[1,2]",
                                      R"(/devices=[{"cpu": {}}, {"cpu": {}}])",
                                      R"(/kernel="reference")", "/output=a=b"});
  EXPECT_EQ(c.plan.batch, 64);
  EXPECT_EQ(c.plan.strategy, Strategy::data);
  EXPECT_EQ(c.plan.split.ratios.size(), 2U);
  EXPECT_EQ(c.plan.kernel, "reference");
  EXPECT_EQ(c.output, fs::path("a=b"));
}

TEST_F(LoadConfig, SetMakesObjectsOnTheWayAndReachesIntoLists) {
  const RunConfig c = load(
      with(R"("devices": [{"cpu": {}}])"),
      {"/require/max_infer_seconds=2", "/devices/0/cpu/threads=3", "/devices/1/cpu/threads=4"});
  EXPECT_EQ(c.require.max_infer_seconds, 2.0);
  ASSERT_EQ(c.devices.size(), 2U);
  EXPECT_EQ(c.devices[0].threads, 3);
  EXPECT_EQ(c.devices[1].threads, 4);
}

TEST_F(LoadConfig, TheLastSetWins) {
  EXPECT_EQ(load(with(R"("batch": 1)"), {"/batch=2", "/batch=3"}).plan.batch, 3);
}

TEST_F(LoadConfig, BiasOfOfficialSizesMayBeLeftOut) {
  for (const char* neurons : {"1024", "4096", "16384", "65536"}) {
    const std::string text = std::string(R"({"model": {"graph_challenge": {"neurons": )") +
                             neurons + R"(, "layers": 120}}, "input": {"graph_challenge": {}}})";
    EXPECT_EQ(refusal(text), "");
  }
}

TEST_F(LoadConfig, PartitionIsANameOrAFile) {
  EXPECT_EQ(load(with("")).partition.model, "auto");
  const RunConfig named =
      load(with(R"("strategy": "model", "partition": "hypergraph", "seed": 7)"));
  EXPECT_EQ(named.partition.model, "hypergraph");
  EXPECT_EQ(named.partition.seed, 7U);
  write("rows.part", "0\n");
  const RunConfig file = load(with(R"("strategy": "model", "partition": "rows.part")"));
  EXPECT_EQ(file.partition.model, "file");
  EXPECT_EQ(file.partition.file, folder_ / "rows.part");
}

}  // namespace
}  // namespace spdnn
