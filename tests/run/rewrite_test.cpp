// Runs with compile on: the results of the network as given, for less work.
#include "rewrite.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <numeric>

#include "spdnn/run.hpp"
#include "support/networks.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

class Rewrite : public testing::Test {
 protected:
  Rewrite() : folder_(fs::temp_directory_path() / fmt::format("spdnn-rewrite-{}", getpid())) {
    fs::create_directories(folder_);
    setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
    config_.devices.resize(1);
    config_.output = folder_ / "out";
    config_.file = folder_ / "config.json";
    config_.save_outputs = true;
  }
  ~Rewrite() override { fs::remove_all(folder_); }

  RunResult run_with(std::string compile) {
    config_.compile = std::move(compile);
    Progress progress;
    RunResult result = run(config_, progress);
    EXPECT_EQ(result.status, "verified") << (result.failures.empty() ? "" : result.failures[0]);
    std::ifstream file(config_.output / "outputs.tsv");
    outputs_.assign(std::istreambuf_iterator<char>(file), {});
    return result;
  }

  /// A network with biases that leave some neurons dead, weights that never open others, and
  /// duplicates, hidden and among the outputs.
  void use_file_model() {
    std::mt19937_64 random(7);
    std::vector<Csr> weights;
    for (int l = 0; l < 5; ++l) {
      Csr w = test::random_csr({40, 40, 6, test::Rows::irregular, false}, random);
      std::vector<std::int64_t> offsets = {0};
      std::vector<std::uint32_t> cols;
      std::vector<float> values;
      for (std::int64_t row = 0; row < 60; ++row) {
        const std::int64_t from = row % 40;
        for (std::int64_t k = w.view().row_begin(from); k < w.view().row_begin(from + 1); ++k) {
          cols.push_back(static_cast<std::uint32_t>(w.view().col(k) + (l > 0 ? random() % 20 : 0)));
          const auto value = static_cast<float>(w.view().value(k));
          values.push_back(row >= 50 ? -std::abs(value) : 2.0F * value);
        }
        offsets.push_back(std::ssize(cols));
      }
      const std::int64_t inputs = l > 0 ? 60 : 40;
      weights.push_back(
          make_csr(60, inputs, std::move(offsets), std::move(cols), std::move(values)));
    }
    const Csr images = test::random_csr({200, 40, 8, test::Rows::irregular, false}, random);
    write_cache(folder_ / "model.spdnn", weights, "test");
    write_cache(folder_ / "images.spdnn", {images}, "test");
    config_.model = FileModel{folder_ / "model.spdnn",
                              {.bias = {-0.2F, 0.1F, -0.3F, -0.1F, -0.2F}, .clip = {4.0F}}};
    config_.input.source = FileInput{folder_ / "images.spdnn", {}};
  }

  fs::path folder_;
  RunConfig config_;
  std::string outputs_;  ///< outputs.tsv of the last run
};

TEST_F(Rewrite, ExactPassesGiveTheSameBytes) {
  use_file_model();
  config_.devices.resize(2);
  const RunResult off = run_with("off");
  EXPECT_TRUE(off.compile.passes.empty());
  EXPECT_EQ(off.seconds.compile, 0.0);
  const std::string expected = outputs_;
  const RunResult safe = run_with("safe");
  EXPECT_TRUE(safe.compile.exact);
  EXPECT_LT(safe.compile.after.nonzeros, safe.compile.before.nonzeros);
  EXPECT_LT(safe.edges.executed, off.edges.executed);
  EXPECT_EQ(safe.edges.nominal, off.edges.nominal);
  EXPECT_EQ(safe.categories, off.categories);
  EXPECT_TRUE(outputs_ == expected);
  EXPECT_GT(safe.categories.size(), 0U);
}

TEST_F(Rewrite, AllPassesGiveTheSameOutputsWithinTheTolerance) {
  use_file_model();
  const RunResult off = run_with("off");
  const RunResult full = run_with("full");
  EXPECT_FALSE(full.compile.exact);
  EXPECT_EQ(full.categories, off.categories);
  EXPECT_GT(full.sample.images, 0);
  EXPECT_LT(full.sample.max_abs_difference, 1e-5);
}

TEST_F(Rewrite, RadixNetRunsOnItsClasses) {
  config_.model = RadixNetModel{{1024, 18, 16, 0.0625F, 1}, {}, 32.0F};
  config_.input.source = DigitsInput{100};
  const RunResult off = run_with("off");
  const RunResult full = run_with("full");
  EXPECT_EQ(full.categories, off.categories);
  EXPECT_LT(15 * full.compile.after.nonzeros, full.compile.before.nonzeros);
  EXPECT_LT(10 * full.edges.executed, off.edges.executed);
  EXPECT_GE(full.seconds.compile, full.compile.seconds);
}

TEST_F(Rewrite, RewrittenLayersMustFitBesideTheRest) {
  config_.model = RadixNetModel{{1024, 6, 16, 0.0625F, 1}, {}, 32.0F};
  config_.input.source = DigitsInput{20};
  config_.memory_limit = 4'000'000;
  EXPECT_TRUE(run_with("fold").compile.notes.empty());
  Sources sources = load_sources(config_);
  config_.memory_limit = 4000;
  const CompiledModel kept =
      rewrite(config_, sources, compile_request(config_, sources, config_.devices, {}));
  EXPECT_EQ(kept.report.after, kept.report.before);
  EXPECT_EQ(kept.report.notes.size(), 1U);
}

TEST_F(Rewrite, ALayerThatPassesValuesOnIsNotRun) {
  use_file_model();
  std::vector<Csr> weights = read_cache(folder_ / "model.spdnn");
  std::vector<std::uint32_t> cols(60);
  std::iota(cols.begin(), cols.end(), 0U);
  std::vector<std::int64_t> offsets(61);
  std::iota(offsets.begin(), offsets.end(), 0);
  weights.insert(weights.begin() + 2, make_csr(60, 60, offsets, cols, {1.0F}));
  write_cache(folder_ / "model.spdnn", weights, "test");
  std::get<FileModel>(config_.model).settings.bias = {-0.2F, 0.1F, 0.0F, -0.3F, -0.1F, -0.2F};
  const RunResult off = run_with("off");
  const std::string expected = outputs_;
  const RunResult on = run_with("identity");
  EXPECT_EQ(on.compile.after.rows, on.compile.before.rows - 60);
  EXPECT_EQ(on.layers, 6);
  EXPECT_TRUE(on.compile.exact);
  EXPECT_TRUE(outputs_ == expected);
  EXPECT_EQ(on.edges.executed_uncompiled, off.edges.executed_uncompiled);
}

/// Which ranges a run opened how often, profiling aside: what it launched.
std::map<std::pair<std::string, std::int64_t>, int> launches_of(
    const std::vector<TraceSpan>& spans) {
  std::map<std::pair<std::string, std::int64_t>, int> launches;
  for (const TraceSpan& span : spans) {
    if (std::string_view(span.name) != "compile") ++launches[{span.name, span.payload}];
  }
  return launches;
}

TEST_F(Rewrite, ANetworkWithoutRedundancyRunsAsWithoutCompiling) {
  std::mt19937_64 random(11);
  std::vector<Csr> weights;
  for (int l = 0; l < 6; ++l) {
    weights.push_back(test::random_csr({64, 64, 8, test::Rows::equal, false}, random));
  }
  write_cache(folder_ / "model.spdnn", weights, "test");
  write_cache(folder_ / "images.spdnn",
              {test::random_csr({300, 64, 8, test::Rows::irregular, false}, random)}, "test");
  config_.model = FileModel{folder_ / "model.spdnn", {.bias = {0.1F}, .clip = {4.0F}}};
  config_.input.source = FileInput{folder_ / "images.spdnn", {}};
  (void)run_with("off");  // remembers the profile, so that both plan with the same times
  start_trace();
  const RunResult off = run_with("off");
  const auto expected = launches_of(stop_trace());
  const std::string outputs = outputs_;
  start_trace();
  const RunResult full = run_with("full");
  EXPECT_EQ(launches_of(stop_trace()), expected);
  EXPECT_TRUE(outputs_ == outputs);
  EXPECT_EQ(full.compile.after, full.compile.before);
  EXPECT_TRUE(full.compile.exact);
  EXPECT_EQ(full.edges.executed, off.edges.executed);
  ASSERT_EQ(full.plan.segments.size(), off.plan.segments.size());
  for (std::size_t s = 0; s < off.plan.segments.size(); ++s) {
    EXPECT_EQ(full.plan.segments[s].kernels, off.plan.segments[s].kernels);
  }
}

TEST_F(Rewrite, TheRequestFollowsTheRun) {
  config_.model = RadixNetModel{{1024, 6, 16, 0.0625F, 1}, {}, 32.0F};
  config_.input.source = DigitsInput{200};
  config_.compile = "full";
  const Sources sources = load_sources(config_);
  std::vector<DeviceSpec> specs(3);
  specs[1].threads = 4;
  specs[2].kind = DeviceKind::cuda;
  const CostModel slow = {1e-6, 1e-6, 0.0};
  CompileRequest request = compile_request(config_, sources, specs, slow);
  EXPECT_EQ(request.threads, 5);
  EXPECT_EQ(request.lowest_input, 0.0F);
  EXPECT_EQ(request.highest_input, 1.0F);
  EXPECT_NEAR(request.most_seconds, 200 * 6 * 32768 * 1e-6, 1e-6);
  EXPECT_EQ(compile_request(config_, sources, specs, {1e-12, 1e-12, 0.0}).most_seconds, 1.0);
  config_.compile_seconds = 0.25;
  EXPECT_EQ(compile_request(config_, sources, specs, slow).most_seconds, 0.25);
}

TEST_F(Rewrite, ACompiledNetworkIsKeptAndTakenAgain) {
  use_file_model();
  config_.compile_cache = true;
  EXPECT_FALSE(run_with("full").compile.from_cache);
  const std::string expected = outputs_;
  const RunResult again = run_with("full");
  EXPECT_TRUE(again.compile.from_cache);
  EXPECT_FALSE(again.compile.exact);
  EXPECT_EQ(again.compile.passes.front().name, "fold");
  EXPECT_TRUE(outputs_ == expected);
  EXPECT_FALSE(run_with("safe").compile.from_cache) << "other passes";
  std::get<FileModel>(config_.model).settings.bias[2] = -0.31F;
  EXPECT_FALSE(run_with("full").compile.from_cache) << "another bias";
  config_.compile_cache = false;
  EXPECT_FALSE(run_with("full").compile.from_cache);
}

TEST_F(Rewrite, TheRangeOfInputsHoldsWhatIsNotStored) {
  const float infinity = std::numeric_limits<float>::infinity();
  const auto range = [](std::vector<float> values) {
    std::vector<std::uint32_t> cols(values.size());
    const auto nnz = std::ssize(values);
    const Csr images = make_csr(1, 1, {0, nnz}, std::move(cols), std::move(values));
    const InputRange found = range_of(images.view());
    return std::pair(found.lowest, found.highest);
  };
  EXPECT_EQ(range({2.0F, 3.0F}), std::pair(0.0F, 3.0F));
  EXPECT_EQ(range({1.0F}), std::pair(0.0F, 1.0F));
  EXPECT_EQ(range({-2.0F, -1.0F}), std::pair(-2.0F, 0.0F));
  EXPECT_EQ(range({}), std::pair(0.0F, 0.0F));
  EXPECT_EQ(range({1.0F, std::nanf("")}), std::pair(-infinity, infinity));
}

TEST_F(Rewrite, TheOfficialNetworkHasItsCategories) {
  const char* const data = std::getenv("SPDNN_DATA");
  if (data == nullptr) GTEST_SKIP() << "SPDNN_DATA names no folder of real data";
  const fs::path archive = fs::path(data) / "sdgc" / "sdgc-neuron1024-l120.tar.xz";
  if (!fs::exists(archive)) GTEST_SKIP() << archive << " is not there";
  const std::string unpack =
      fmt::format("tar -xJf '{}' -C '{}'", archive.string(), folder_.string());
  ASSERT_EQ(std::system(unpack.c_str()), 0) << unpack;
  config_.data_dir = folder_;
  config_.model = GraphChallengeModel{1024, 120, {}, 32.0F};
  config_.input.source = GraphChallengeInput{};
  for (const std::string level : {"off", "safe", "full"}) {
    const RunResult result = run_with(level);
    EXPECT_EQ(result.categories.size(), 19U);
    EXPECT_EQ(result.categories_match, true);
    EXPECT_EQ(result.compile.before.nonzeros, 3'932'160);
    EXPECT_LE(result.sample.max_abs_difference, 1e-3);
    EXPECT_GT(result.equal_images, 0);  // all survivors become equal in the end
    if (level == "full") {
      EXPECT_LE(result.compile.after.nonzeros, 167'988);
    }
  }
  const double merged = run_with("off").edges.executed;
  config_.merge_images = false;
  const RunResult apart = run_with("off");
  EXPECT_EQ(apart.equal_images, 0);
  EXPECT_GT(apart.edges.executed, merged);
}

}  // namespace
}  // namespace spdnn
