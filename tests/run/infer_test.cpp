// Whole inference runs on small random networks: every way to divide the work gives the bits of a
// plain evaluation, image by image.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "spdnn/run.hpp"
#include "support/networks.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using test::Rows;

class Infer : public testing::Test {
 protected:
  Infer() : folder_(fs::temp_directory_path() / fmt::format("spdnn-run-{}", getpid())) {
    fs::create_directories(folder_);
    setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
  }
  ~Infer() override { fs::remove_all(folder_); }

  /// A network of `layers` with the biases given, and images, written as files.
  RunConfig make(std::vector<float> bias, float value_scale = 2.0F) {
    std::mt19937_64 random(42);
    const auto layers = std::ssize(bias);
    std::vector<std::int64_t> widths = {48};
    for (std::int64_t l = 0; l < layers; ++l) widths.push_back(l % 3 == 1 ? 75 : 48);
    weights_.clear();
    for (std::int64_t l = 0; l < layers; ++l) {
      const Csr w = test::random_csr({widths[l + 1], widths[l], 6, Rows::irregular, false}, random);
      weights_.push_back(scaled(w, value_scale));
    }
    images_ = test::random_csr({150, 48, 6, Rows::irregular, true}, random);
    bias_ = bias;
    write_cache(folder_ / "model.spdnn", weights_, "test");
    write_cache(folder_ / "images.spdnn", {images_}, "test");
    RunConfig config;
    config.model = FileModel{folder_ / "model.spdnn", {.bias = std::move(bias), .clip = {4.0F}}};
    config.input.source = FileInput{folder_ / "images.spdnn", {}};
    config.devices.resize(1);
    config.output = folder_ / "out";
    config.file = folder_ / "config.json";
    config.save_outputs = true;
    return config;
  }

  static Csr scaled(const Csr& w, float scale) {
    std::vector<std::int64_t> offsets;
    std::vector<std::uint32_t> cols;
    std::vector<float> values;
    for (std::int64_t r = 0; r <= w.rows(); ++r) offsets.push_back(w.view().row_begin(r));
    for (std::int64_t k = 0; k < w.nnz(); ++k) {
      cols.push_back(static_cast<std::uint32_t>(w.view().col(k)));
      values.push_back(static_cast<float>(w.view().value(k)) * scale);
    }
    return make_csr(w.rows(), w.cols(), std::move(offsets), std::move(cols), std::move(values));
  }

  /// The outputs of one image by plain fp32 chains.
  std::vector<float> evaluate(std::int64_t image) const {
    std::vector<float> x(static_cast<std::size_t>(images_.cols()), 0.0F);
    const CsrView& in = images_.view();
    for (std::int64_t k = in.row_begin(image); k < in.row_begin(image + 1); ++k) {
      x[in.col(k)] = static_cast<float>(in.value(k));
    }
    for (std::size_t l = 0; l < weights_.size(); ++l) {
      std::vector<float> y;
      for (std::int64_t row = 0; row < weights_[l].rows(); ++row) {
        y.push_back(test::expected_output(weights_[l].view(), row, bias_[l], {0.0F, 4.0F},
                                          [&](std::int64_t c) { return x[c]; })
                        .canonical);
      }
      x = y;
    }
    return x;
  }

  /// Runs and compares categories and every output with `evaluate`.
  RunResult expect_right(const RunConfig& config) {
    Progress progress;
    const RunResult result = run(config, progress);
    std::string expected;
    std::vector<std::int64_t> categories;
    for (std::int64_t i = 0; i < images_.rows() * config.input.repeat; ++i) {
      const std::vector<float> y = evaluate(i % images_.rows());
      for (std::size_t f = 0; f < y.size(); ++f) {
        if (y[f] != 0.0F) expected += fmt::format("{}\t{}\t{}\n", i + 1, f + 1, y[f]);
      }
      if (std::any_of(y.begin(), y.end(), [](float v) { return v != 0.0F; })) {
        categories.push_back(i);
      }
    }
    EXPECT_EQ(result.categories, categories);
    std::ifstream file(config.output / "outputs.tsv");
    const std::string got((std::istreambuf_iterator<char>(file)), {});
    EXPECT_TRUE(got == expected) << "outputs differ";
    EXPECT_EQ(result.status, "verified") << (result.failures.empty() ? "" : result.failures[0]);
    EXPECT_EQ(exit_status(result), ExitStatus::done);
    return result;
  }

  fs::path folder_;
  std::vector<Csr> weights_;
  std::vector<float> bias_;
  Csr images_;
};

const std::vector<float> kDying = {-0.5F, -0.9F, -0.6F, -0.5F, -0.4F, -0.4F, -0.3F, -0.2F};

TEST_F(Infer, OneRankEqualsPlainEvaluation) {
  const RunResult result = expect_right(make(kDying));
  EXPECT_GT(result.categories.size(), 0U);
  EXPECT_LT(std::ssize(result.categories), result.images);
  EXPECT_LT(result.edges.executed, result.edges.nominal);
}

TEST_F(Infer, EveryDivisionOfTheImagesGivesTheSameBits) {
  RunConfig config = make(kDying);
  for (const std::size_t ranks : {1, 2, 3, 8}) {
    for (const std::int64_t batch : {1, 7, 64, 1000}) {
      config.devices.assign(ranks, {});
      config.plan.batch = batch;
      SCOPED_TRACE(fmt::format("{} ranks, batch {}", ranks, batch));
      expect_right(config);
    }
  }
  config.devices.assign(1, {});
  config.devices[0].threads = 3;
  expect_right(config);
}

TEST_F(Infer, UnevenRatiosMayLeaveARankWithoutImages) {
  RunConfig config = make(kDying);
  config.plan.strategy = Strategy::data;
  config.devices.assign(3, {});
  config.plan.split = {SplitKind::ratios, {1.0, 0.0, 9.0}};
  const RunResult result = expect_right(config);
  EXPECT_EQ(result.devices[1].images, 0);
  config.devices.assign(40, {});
  config.plan.split = {SplitKind::even, {}};
  config.input.source = FileInput{folder_ / "images.spdnn", 7};
  images_ = images_.slice_rows({0, 7});
  expect_right(config);
}

TEST_F(Infer, PositiveBiasesReviveDeadImages) {
  // Death may not be final before layer 6: dead images are merged into one and continue.
  const RunResult revived =
      expect_right(make({-0.3F, -9.0F, -0.5F, -0.4F, 0.2F, -0.2F, -0.2F, -0.1F}));
  EXPECT_LT(revived.edges.executed, revived.edges.nominal / 2);
  expect_right(make({-0.3F, -0.6F, -0.5F, -0.4F, -0.3F, -0.2F, -0.2F, 0.5F}));
  expect_right(make({0.5F}));
  RunConfig config = make({-9.0F, 0.3F, -0.2F, -0.9F, 0.1F, -0.2F, 0.1F, -0.1F});
  config.plan.batch = 33;
  config.devices.assign(2, {});
  expect_right(config);
}

TEST_F(Infer, AllImagesMayDie) {
  const RunResult result = expect_right(make({-0.3F, -100.0F, -0.5F}));
  EXPECT_TRUE(result.categories.empty());
}

TEST_F(Infer, RepeatedImagesAreMergedOnlyWhereAsked) {
  RunConfig config = make(kDying);
  config.input.repeat = 3;
  const RunResult merged = expect_right(config);
  EXPECT_LE(merged.unique_images, 150);
  config.deduplicate_images = false;
  const RunResult apart = expect_right(config);
  EXPECT_EQ(apart.unique_images, 450);
  EXPECT_GT(apart.edges.executed, 2.9 * merged.edges.executed);
}

TEST_F(Infer, StreamsLayersWhenMemoryIsShort) {
  std::vector<float> many = kDying;
  for (int repeats = 0; repeats < 3; ++repeats) many.insert(many.end(), many.begin(), many.end());
  RunConfig config = make(many);
  config.memory_limit = 80000;
  config.devices.assign(2, {});
  const RunResult result = expect_right(config);
  EXPECT_TRUE(result.plan.stream_weights[0]);
  config.memory_limit = 1000;
  Progress progress;
  EXPECT_THROW((void)run(config, progress), InputError);
}

TEST_F(Infer, TheReferenceKernelStaysWithinItsTolerance) {
  RunConfig config = make(kDying);
  config.plan.kernel = "reference";
  Progress progress;
  const RunResult result = run(config, progress);
  EXPECT_EQ(result.status, "verified");
  EXPECT_EQ(result.plan.segments[0].kernels[0][0], "reference");
}

TEST_F(Infer, AWrongTruthIsNamed) {
  RunConfig config = make(kDying);
  Progress progress;
  std::vector<std::int64_t> truth = run(config, progress).categories;
  config.verify.truth = folder_ / "truth.tsv";
  write_categories(config.verify.truth, truth);
  expect_right(config);
  const std::int64_t dropped = truth.front();
  truth.erase(truth.begin());
  write_categories(config.verify.truth, truth);
  const RunResult wrong = run(config, progress);
  EXPECT_EQ(wrong.status, "wrong");
  EXPECT_EQ(exit_status(wrong), ExitStatus::wrong);
  ASSERT_EQ(wrong.failures.size(), 1U);
  EXPECT_NE(wrong.failures[0].find(fmt::format("not in the truth file: {} (", dropped + 1)),
            std::string::npos);
}

TEST_F(Infer, BarsThatAreMissedFailTheRun) {
  RunConfig config = make(kDying);
  config.require.max_host_bytes = 1;
  config.verify.sample_against_reference = 0;
  config.require.verified = true;
  Progress progress;
  const RunResult result = run(config, progress);
  EXPECT_EQ(result.status, "done");
  EXPECT_EQ(result.failures.size(), 2U);
  EXPECT_EQ(exit_status(result), ExitStatus::wrong);
}

TEST_F(Infer, ADeclaredSlowdownHoldsTheRankBackAndShiftsItsShare) {
  RunConfig config = make(kDying);
  config.devices.assign(2, {});
  config.devices[1].slowdown = 4.0;
  config.plan.strategy = Strategy::data;
  config.deduplicate_images = false;
  const RunResult result = expect_right(config);
  EXPECT_TRUE(result.devices[1].logical);
  EXPECT_EQ(result.devices[0].images, 4 * result.devices[1].images);
}

TEST_F(Infer, CancellingEndsTheRun) {
  RunConfig config = make(kDying);
  config.devices.assign(3, {});
  Progress progress;
  progress.cancel = true;
  EXPECT_THROW((void)run(config, progress), Error);
  EXPECT_FALSE(fs::exists(config.output / "categories.tsv"));
}

TEST_F(Infer, InputsThatDoNotFitAreRefused) {
  RunConfig config = make(kDying);
  config.input.source = FileInput{folder_ / "model.spdnn", {}};  // many matrices
  Progress progress;
  EXPECT_THROW((void)run(config, progress), InputError);
  config.input.source = FileInput{folder_ / "images.spdnn", 151};
  EXPECT_THROW((void)run(config, progress), InputError);
  config.input.source = FileInput{folder_ / "images.spdnn", {}};
  std::get<FileModel>(config.model).settings.bias = {0.0F, 1.0F};
  EXPECT_THROW((void)run(config, progress), InputError);
}

}  // namespace
}  // namespace spdnn
