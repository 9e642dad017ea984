// Training from the outside: what a run leaves, and that being killed loses nothing.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <random>
#include <sstream>
#include <thread>

#include "process.hpp"
#include "support/idx_files.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::expect_part;
using test::Outcome;
using test::read_text;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

class Train : public test::CliTest {
 protected:
  void SetUp() override {
    write_set("train", 900, 1);
    write_set("t10k", 200, 2);
  }

  /// Noisy copies of one picture a class, in MNIST's files.
  void write_set(const std::string& part, std::uint32_t count, unsigned seed) const {
    constexpr std::size_t kPixels = 64;
    std::mt19937 pictures(7);
    std::string prototypes(4 * kPixels, '\0');
    for (char& p : prototypes) p = static_cast<char>(pictures() % 256);
    std::mt19937 random(seed);
    std::string pixels;
    std::string labels;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::size_t label = random() % 4;
      labels += static_cast<char>(label);
      for (std::size_t p = 0; p < kPixels; ++p) {
        pixels +=
            random() % 3 == 0 ? static_cast<char>(random() % 256) : prototypes[label * kPixels + p];
      }
    }
    static_cast<void>(
        write("set/" + part + "-images-idx3-ubyte", test::images_file(count, 8, 8, pixels)));
    write_as_text(part, pixels, labels);
    static_cast<void>(write("set/" + part + "-labels-idx1-ubyte", test::labels_file(labels)));
  }

  /// Trains with these settings and holds what the process took to
  /// what it lists, which is returned.
  json expect_little_more_memory_than_listed(const std::string& layers, const std::string& train) {
    const std::string file = write("c.json", R"({"job": "train", "model": {"layers": [)" + layers +
                                                 R"(]}, "input": {"mnist": "set"},
        "train": {)" + train + R"(}, "devices": [{"cpu": {}}], "output": "out"})");
    const Outcome o = run({"run", file});
    EXPECT_EQ(o.status, 0) << o.out << o.err;
    json listed = result()["train"]["memory_bytes"];
    EXPECT_LE(result()["peak_bytes"]["host"].get<double>(), 1.15 * listed["sum"].get<double>())
        << listed.dump(2);
    return listed;
  }

  /// The same as lines of sample, feature and value, and of labels.
  void write_as_text(const std::string& part, const std::string& pixels,
                     const std::string& labels) const {
    std::ostringstream lines;
    lines.precision(9);
    const std::size_t features = pixels.size() / labels.size();
    for (std::size_t i = 0; i < pixels.size(); ++i) {
      const auto byte = static_cast<unsigned char>(pixels[i]);
      if (byte == 0) continue;
      lines << i / features + 1 << '\t' << i % features + 1 << '\t'
            << static_cast<float>(byte) / 255.0F << '\n';
    }
    std::string names;
    for (const char label : labels) names += std::to_string(int{label}) + '\n';
    static_cast<void>(write("set/" + part + ".tsv", lines.str()));
    static_cast<void>(write("set/" + part + "-labels.txt", names));
  }

  [[nodiscard]] std::string config(int epochs, const std::string& more = "") const {
    return write("c.json", R"({"job": "train",
      "model": {"layers": [{"outputs": 64, "count": 2, "density": 0.2},
                           {"outputs": 4, "topology": "dense", "activation": "identity"}]},
      "input": {"mnist": "set"},
      "devices": [{"cpu": {}}, {"cpu": {}}],
      "train": {"epochs": )" + std::to_string(epochs) +
                               R"(, "batch": 64, "rewire": {"method": "rigl", "every_steps": 20}},
      "output": "out")" + more +
                               "}");
  }
  [[nodiscard]] json result() const { return json::parse(read_text(folder_ / "out/result.json")); }
  /// The bytes of the last checkpoint.
  [[nodiscard]] std::string last_checkpoint(const std::string& out, int epochs) const {
    std::string number = std::to_string(epochs);
    number.insert(0, 6 - number.size(), '0');
    return read_text(folder_.path() / out / "checkpoints" /
                     ("checkpoint-" + number + ".safetensors"));
  }
};

TEST_F(Train, LeavesAccuracyMetricsAndCheckpoints) {
  const Outcome o = run({"run", config(5, R"(, "require": {"min_accuracy": 0.9})")});
  EXPECT_EQ(o.status, 0) << o.out << o.err;
  EXPECT_EQ(o.out.rfind("TRAINED", 0), 0U) << o.out;
  const json r = result();
  EXPECT_EQ(r["job"], "train");
  EXPECT_GE(r["accuracy"].get<double>(), 0.9);
  EXPECT_EQ(r["train"]["test"]["images"], 200);
  std::int64_t diagonal = 0;
  for (std::size_t c = 0; c < 4; ++c) {
    diagonal += r["confusion"][c][c].get<std::int64_t>();
  }
  EXPECT_EQ(diagonal, r["train"]["test"]["correct"].get<std::int64_t>());
  EXPECT_EQ(r["train"]["layers"][1]["connections"], std::llround(0.2 * 64 * 64));
  std::istringstream metrics(read_text(folder_ / "out/metrics.jsonl"));
  int epoch = 0;
  for (std::string line; std::getline(metrics, line);) {
    EXPECT_EQ(json::parse(line)["epoch"], ++epoch);
  }
  EXPECT_EQ(epoch, 5);
  EXPECT_FALSE(last_checkpoint("out", 5).empty());
  EXPECT_FALSE(last_checkpoint("out", 4).empty());
  EXPECT_TRUE(last_checkpoint("out", 3).empty());
}

/// Of a network that is mostly parameters, with batches in pieces, a checkpoint, and the network as
/// the result: none of them holds the parameters once more.
TEST_F(Train, TakesLittleMoreMemoryThanItLists) {
  if (kSanitized)
    GTEST_SKIP() << "sanitizers keep memory that was freed, and take some of their own";
  const json listed = expect_little_more_memory_than_listed(
      R"({"outputs": 2048, "topology": "dense"}, {"outputs": 1024, "topology": "dense"},
         {"outputs": 2048, "density": 0.3},
         {"outputs": 4, "topology": "dense", "activation": "identity"})",
      R"("epochs": 1, "batch": 200, "validation_images": 500, "restore_best": false,
         "optimizer": {"kind": "adam", "rate": 0.001})");
  const double parameters = listed["values and biases"].get<double>() +
                            listed["gradient"].get<double>() +
                            listed["optimizer state"].get<double>();
  EXPECT_GT(parameters, 0.5 * listed["sum"].get<double>()) << listed.dump(2);
}

/// However often connections change: what a change needs goes where the last one had it.
TEST_F(Train, RewiringTakesLittleMoreMemoryThanItLists) {
  if (kSanitized)
    GTEST_SKIP() << "sanitizers keep memory that was freed, and take some of their own";
  for (const std::string method : {"rigl", "set"}) {
    SCOPED_TRACE(method);
    const json listed = expect_little_more_memory_than_listed(
        R"({"outputs": 2048, "density": 0.1}, {"outputs": 2048, "density": 0.1},
           {"outputs": 4, "topology": "dense", "activation": "identity"})",
        R"("epochs": 2, "batch": 75, "rewire": {"method": ")" + method +
            R"(", "every_steps": 1, "until": 1.0}, "optimizer": {"kind": "adam"})");
    const double least = method == "rigl" ? 1e6 : 1.0;
    EXPECT_GT(listed["rewiring"].get<double>(), least) << listed.dump(2);
  }
}

TEST_F(Train, OnlyGpusStoreSixteenBits) {
  const Outcome o = run({"run", config(1, R"(, "precision": "bf16")")});
  EXPECT_EQ(o.status, 2);
  EXPECT_NE(o.err.find("/precision: 'bf16' is stored on GPUs, and device 0 is a CPU; use 'fp32'"),
            std::string::npos)
      << o.err;
}

/// A checkpoint is a network that a run of its own evaluates.
TEST_F(Train, CheckpointsAreEvaluatedOnTheTestImages) {
  ASSERT_EQ(run({"run", config(3)}).status, 0);
  const json trained = result();
  const std::string file =
      write("e.json", R"({"model": {"path": "out/checkpoints/checkpoint-000003.safetensors"},
        "input": {"mnist": "set", "repeat": 2}, "output": "evaluated"})");
  const Outcome o = run({"run", file});
  ASSERT_EQ(o.status, 0) << o.err;
  const json evaluated = json::parse(read_text(folder_ / "evaluated/result.json"));
  EXPECT_EQ(evaluated["status"], "verified");
  EXPECT_EQ(evaluated["accuracy"], trained["accuracy"]);
  for (std::size_t label = 0; label < 4; ++label) {
    for (std::size_t predicted = 0; predicted < 4; ++predicted) {
      EXPECT_EQ(evaluated["confusion"][label][predicted].get<int>(),
                2 * trained["confusion"][label][predicted].get<int>());
    }
  }
}

/// Convolutions and poolings of every kind: trained, resumed, and evaluated under every strategy
/// that divides images or filters.
TEST_F(Train, ConvolutionsAreTrainedResumedAndEvaluated) {
  const std::string file = write("conv.json", R"({"job": "train",
    "model": {"layers": [
      {"kind": "conv2d", "out_channels": 8, "kernel": 3, "topology": "dense"},
      {"kind": "max_pool", "kernel": 2},
      {"kind": "conv2d", "out_channels": 12, "kernel": 3, "density": 0.3},
      {"kind": "conv2d", "out_channels": 16, "kernel": 3, "stride": 2, "padding": 1, "groups": 4,
       "topology": "dense", "clip": 2},
      {"kind": "avg_pool", "kernel": 2, "stride": 1, "padding": "same"},
      {"outputs": 4, "topology": "dense", "activation": "identity"}]},
    "input": {"mnist": "set"}, "devices": [{"cpu": {}}, {"cpu": {}}],
    "train": {"epochs": 4, "batch": 64, "optimizer": {"rate": 0.005}},
    "require": {"min_accuracy": 0.9}, "output": "conv"})");
  const Outcome o = run({"run", file});
  ASSERT_EQ(o.status, 0) << o.out << o.err;
  const json trained = json::parse(read_text(folder_ / "conv/result.json"));
  EXPECT_EQ(trained["train"]["layers"][1]["connections"], 0);
  EXPECT_EQ(trained["train"]["layers"][2]["connections"], std::llround(0.3 * 12 * 72));
  EXPECT_EQ(trained["train"]["layers"][3]["connections"], 16 * 27);  // of its own 3 channels
  const std::string end = last_checkpoint("conv", 4);
  fs::remove(folder_ / "conv/checkpoints/checkpoint-000004.safetensors");
  ASSERT_EQ(run({"run", file, "--resume"}).status, 0);
  EXPECT_EQ(last_checkpoint("conv", 4), end);

  const std::string evaluate = write("e.json", R"({"model": {"path":
    "conv/checkpoints/checkpoint-000004.safetensors"}, "input": {"mnist": "set"},
    "compile": "safe", "devices": [{"cpu": {"threads": 2}}, {"cpu": {}}, {"cpu": {}}],
    "verify": {"sample_against_reference": 40}, "output": "evaluated"})");
  for (const char* strategy : {"data", "model", "data_then_model", "task_stealing", "grid"}) {
    const Outcome run_of = run({"run", evaluate, "--set", std::string("/strategy=") + strategy,
                                "--set", "/batch=64", "--set", "/model_ranks=3"});
    ASSERT_EQ(run_of.status, 0) << strategy << run_of.out << run_of.err;
    const json evaluated = json::parse(read_text(folder_ / "evaluated/result.json"));
    EXPECT_EQ(evaluated["status"], "verified") << strategy;
    EXPECT_EQ(evaluated["confusion"], trained["confusion"]) << strategy;
  }
  // A copy in the same format holds all of it; formats of matrices do not.
  const std::string checkpoint =
      (folder_ / "conv/checkpoints/checkpoint-000004.safetensors").string();
  ASSERT_EQ(run({"convert", checkpoint, (folder_ / "copy.safetensors").string()}).status, 0);
  EXPECT_EQ(run({"run", evaluate, "--set", "/model/path=copy.safetensors"}).status, 0);
  EXPECT_EQ(json::parse(read_text(folder_ / "evaluated/result.json"))["confusion"],
            trained["confusion"]);
  const Outcome refused = run({"convert", checkpoint, (folder_ / "copy.spdnn").string()});
  EXPECT_EQ(refused.status, 2);
  expect_part(refused.err, "linear layers alone");
}

/// The same samples as text: the same losses, digit for digit.
TEST_F(Train, TakesLabelledText) {
  ASSERT_EQ(run({"run", config(2)}).status, 0);
  const json pictures = result();
  json changed = json::parse(read_text(folder_ / "c.json"));
  changed["input"] = {{"tsv",
                       {{"features", 64},
                        {"samples", "set/train.tsv"},
                        {"labels", "set/train-labels.txt"},
                        {"test_samples", "set/t10k.tsv"},
                        {"test_labels", "set/t10k-labels.txt"}}}};
  const Outcome o = run({"run", write("text.json", changed.dump())});
  ASSERT_EQ(o.status, 0) << o.err;
  const json text = result();
  EXPECT_EQ(text["confusion"], pictures["confusion"]);
  EXPECT_EQ(text["train"]["test"]["loss"], pictures["train"]["test"]["loss"]);

  changed["input"]["tsv"].erase("test_labels");
  const Outcome half = run({"run", write("half.json", changed.dump())});
  EXPECT_EQ(half.status, 2);
  expect_part(half.err, "test_samples and test_labels go together");
  changed["input"]["tsv"].erase("test_samples");
  EXPECT_EQ(run({"run", write("none.json", changed.dump())}).status, 0);
}

TEST_F(Train, MissingABarEndsWithOne) {
  const Outcome o = run({"run", config(1, R"(, "require": {"min_accuracy": 1.0})")});
  EXPECT_EQ(o.status, 1);
  expect_part(o.out, "accuracy");
}

TEST_F(Train, InterruptedRunsSayHowToGoOn) {
  const pid_t child = start({"run", config(10'000, R"(, "seed": 3)")});
  const auto epochs = [&] {
    const std::string lines = read_text(folder_ / "out/metrics.jsonl");
    return std::count(lines.begin(), lines.end(), '\n');
  };
  while (epochs() < 2) std::this_thread::yield();
  kill(child, SIGINT);
  const Outcome stopped = finish(child);
  EXPECT_EQ(stopped.status, 130);
  expect_part(stopped.err, "cancelled in step ");
  expect_part(stopped.err, " of epoch ");
  expect_part(stopped.err, "--resume goes on");
  // Begun anew, such a run takes the place of the one before.
  Outcome o = run({"run", config(1)});
  ASSERT_EQ(o.status, 0) << o.err;
  expect_part(o.out, "note: checkpoints of an earlier run, up to epoch ");
  o = run({"run", config(1), "--resume"});
  ASSERT_EQ(o.status, 0) << o.err;
  expect_part(o.out, "after epoch 1 of an earlier run");
  EXPECT_EQ(o.out.find("note: checkpoints of an earlier run"), std::string::npos) << o.out;
}

/// Kills a run at random moments and resumes it, as often as SPDNN_KILLS says, until it ends. One
/// that ended before its first kill, on a machine that was busy when it was timed, begins anew.
TEST_F(Train, KilledRunsResumeToTheSameBits) {
  constexpr int kEpochs = 40;
  const std::string file = config(kEpochs);
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(run({"run", file, "--output", "whole"}).status, 0);
  const auto took = std::chrono::steady_clock::now() - begin;
  const char* asked = std::getenv("SPDNN_KILLS");
  const int kills = asked == nullptr ? 3 : std::atoi(asked);
  std::mt19937 random(std::random_device{}());
  int killed = 0;
  for (int i = 0; i < kills || killed == 0; ++i) {
    ASSERT_LT(i, 100 + kills) << "every run ended before it could be killed";
    const pid_t child = start({"run", file, "--resume"});
    std::this_thread::sleep_for(took * static_cast<int>(random() % 60) / 100);
    ::kill(child, SIGKILL);
    killed += finish(child).status == 128 + SIGKILL ? 1 : 0;
    if (killed == 0) fs::remove_all(folder_ / "out");
  }
  const Outcome end = run({"run", file, "--resume"});
  ASSERT_EQ(end.status, 0) << end.err;
  EXPECT_EQ(last_checkpoint("out", kEpochs), last_checkpoint("whole", kEpochs));
  std::istringstream metrics(read_text(folder_ / "out/metrics.jsonl"));
  int epoch = 0;
  for (std::string line; std::getline(metrics, line);) {
    EXPECT_EQ(json::parse(line)["epoch"], ++epoch);
  }
  EXPECT_EQ(epoch, kEpochs);
}

/// A limit on the size of files stands for a full disk.
TEST_F(Train, ADiskThatIsFullLosesNothingWritten) {
  ASSERT_EQ(run({"run", config(2)}).status, 0);
  const std::string before = last_checkpoint("out", 2);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small = {10'000, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const pid_t child = start({"run", "c.json", "--set", "/train/epochs=2", "--set", "/seed=2"});
  setrlimit(RLIMIT_FSIZE, &old);
  const Outcome o = finish(child);
  EXPECT_EQ(o.status, 3) << o.out;
  expect_part(o.err, "free space");
  EXPECT_EQ(last_checkpoint("out", 2), before);
  for (const auto& entry : fs::directory_iterator(folder_ / "out/checkpoints")) {
    EXPECT_EQ(entry.path().extension(), ".safetensors") << "a temporary file was left";
  }
}

/// A stored partition of the network as it is drawn names the owner of every row.
TEST_F(Train, RowsHaveTheOwnersOfAFile) {
  const std::string file = config(2);
  const std::vector<std::string> rows{"--set", "/strategy=model", "--set", "/train/rewire={}"};
  const auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), rows.begin(), rows.end());
    return run(arguments);
  };
  Outcome o = with({"partition", file, "--parts", "2", "--models", "random", "--save", "."});
  ASSERT_EQ(o.status, 0) << o.err;
  o = with({"run", file, "--set", "/partition=c-2.part"});
  ASSERT_EQ(o.status, 0) << o.err;
  const json r = result();
  EXPECT_EQ(r["rows"]["partition"], "c-2.part");
  for (const json& layer : r["rows"]["layers"]) {
    EXPECT_EQ(layer["forward_bytes"], layer["predicted_forward_bytes"]);
    EXPECT_EQ(layer["backward_bytes"], layer["predicted_backward_bytes"]);
  }
  EXPECT_GT(r["rows"]["layers"][1]["backward_bytes"].get<std::int64_t>(), 0);
  o = with({"run", file, "--set", "/partition=c-2.part", "--set", "/seed=2"});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "c-2.part: is for the network with key");
  o = with({"run", file, "--set", "/partition=c-2.part", "--set",
            R"(/devices=[{"cpu": {}}, {"cpu": {}}, {"cpu": {}}])"});
  EXPECT_EQ(o.status, 2);
  expect_part(o.err, "has 2 parts, but there are 3 ranks");
}

TEST_F(Train, WhatDoesNotFitIsNamed) {
  const auto expect_refused = [&](const std::vector<std::string>& sets, const std::string& part) {
    std::vector<std::string> arguments{"run", config(1)};
    for (const std::string& set : sets) arguments.insert(arguments.end(), {"--set", set});
    const Outcome o = run(arguments);
    EXPECT_EQ(o.status, 2) << part;
    expect_part(o.err, part);
  };
  expect_refused({"/model/layers/0/density=0"}, "/model/layers/0/density");
  expect_refused({"/model/layers/0/topology=radixnet"}, "/model/layers/0/density");
  expect_refused({"/model/layers/1/outputs=3"}, "3 outputs");
  expect_refused({"/model/layers/1/outputs=3"}, ", such as 3 of training image ");
  expect_refused({"/job=infer"}, "/model/layers");
  expect_refused({"/train/validation_images=900"}, "900");
  expect_refused({"/train/patience=3"}, "/train/validation_images");
  expect_refused({"/split=[1,2,3]"}, "/split");
  expect_refused({"/comm/backend=nccl"}, "/comm/backend: is 'nccl', but rank 0 is no GPU");
  expect_refused({"/train/start_from=c.json"}, "c.json");
  expect_refused({"/model/layers/0/kernel=3"}, "/model/layers/0/kernel: does not go with kind");
  const auto layer = [](const char* text) { return std::string("/model/layers/0=") + text; };
  expect_refused({layer(R"({"kind": "conv2d", "kernel": 3, "density": 0.5})")}, "out_channels");
  expect_refused({layer(R"({"kind": "max_pool", "kernel": 2, "density": 0.5})")}, "density");
  expect_refused({layer(R"({"kind": "max_pool", "kernel": 9})")}, "layer 1: a window of 9 × 9");
  expect_refused(
      {layer(R"({"kind": "conv2d", "out_channels": 4, "kernel": 3, "padding": 3, "density": 1})")},
      "padding 3");
  const std::string grouped =
      layer(R"({"kind": "conv2d", "out_channels": 4, "kernel": 3, "groups": 2, "density": 1})");
  expect_refused({grouped, "/train/rewire={}"}, "2 groups");
  expect_refused({grouped}, "/train/rewire/method");
}

}  // namespace
}  // namespace spdnn
