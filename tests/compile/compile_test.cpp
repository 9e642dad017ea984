// The loop of passes: what it keeps, what it reports, where it gives up.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "networks.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

using test::compile_with;
using test::kRelu;
using test::layer_of;
using test::model_of;
using test::same_arrays;

Model radixnet(std::int64_t neurons, std::int64_t layers) {
  RadixNetSpec spec;
  spec.neurons = neurons;
  spec.layers = layers;
  Model model;
  for (std::int64_t l = 0; l < layers; ++l) {
    model.layers.push_back(SparseLinear{radixnet_layer(spec, l), {-0.3F}, {0.0F, 32.0F}});
  }
  return model;
}

/// A network in which no pass finds anything: positive biases keep every neuron from being 0
/// always.
Model irreducible(std::int64_t width, std::int64_t layers) {
  std::mt19937_64 random(1);
  Model model;
  for (std::int64_t l = 0; l < layers; ++l) {
    const Csr w = test::random_csr({width, width, 16, test::Rows::equal, false}, random);
    std::vector<float> bias = test::random_floats(static_cast<std::size_t>(width), random);
    for (float& b : bias) b = std::abs(b);
    model.layers.push_back(SparseLinear{w, std::move(bias), {0.0F, 32.0F}});
  }
  return model;
}

TEST(Compile, ANetworkWithoutRedundancyIsItself) {
  const Model model = irreducible(300, 5);
  const CompiledModel compiled = compile_with(model, "full");
  EXPECT_TRUE(same_arrays(model, compiled.model));
  EXPECT_TRUE(compiled.outputs.empty());
  EXPECT_TRUE(compiled.report.exact);
  EXPECT_TRUE(compiled.report.notes.empty());
  EXPECT_EQ(compiled.report.before, compiled.report.after);
}

TEST(Compile, NoPassesMeansNoChange) {
  const Model model = radixnet(1024, 6);
  const CompiledModel compiled = compile_with(model, "off");
  EXPECT_TRUE(same_arrays(model, compiled.model));
  EXPECT_TRUE(compiled.report.passes.empty());
}

TEST(Compile, RadixNetFoldsToItsClasses) {
  const Model model = radixnet(1024, 24);
  const CompiledModel compiled = compile_with(model, "full");
  EXPECT_LE(24 * compiled.report.after.rows, compiled.report.before.rows * 2);
  EXPECT_LE(20 * compiled.report.after.nonzeros, compiled.report.before.nonzeros);
  EXPECT_EQ(std::ssize(compiled.outputs), 1024);
  EXPECT_EQ(compiled.report.passes.front().name, "fold");
  EXPECT_EQ(compiled.report.passes.front().layers, 24);
  EXPECT_EQ(compiled.report.passes.front().before, compiled.report.before);
  EXPECT_EQ(compiled.report.passes.back().after, compiled.report.after);
  EXPECT_TRUE(same_arrays(model, compile_with(model, "safe").model));
}

TEST(Compile, ASmallGainIsNotTaken) {
  Model model = irreducible(300, 3);
  const auto& last = test::linear(model, 2);
  std::vector<std::int64_t> ids;
  for (std::int64_t row = 0; row < 300; ++row) ids.push_back(row == 299 ? 0 : row);
  std::vector<float> bias = last.bias;
  bias[299] = bias[0];
  model.layers[2] = SparseLinear{gather_rows(last.weights, ids), bias, last.activation};
  CompileRequest request;
  request.passes = passes_for("full");
  const CompiledModel kept = compile(model, request);
  EXPECT_TRUE(same_arrays(model, kept.model));
  EXPECT_TRUE(kept.outputs.empty());
  ASSERT_EQ(kept.report.notes.size(), 1U);
  EXPECT_NE(kept.report.notes[0].find("% of its work"), std::string::npos);
  request.least_gain = 0.0;
  EXPECT_EQ(compile(model, request).model.outputs(), 299);
}

TEST(Compile, GivesUpWhereMemoryIsShort) {
  const Model model = radixnet(1024, 6);
  CompileRequest request;
  request.passes = {"fold"};
  request.memory_limit = 4000;
  const CompiledModel kept = compile(model, request);
  EXPECT_TRUE(same_arrays(model, kept.model));
  ASSERT_EQ(kept.report.notes.size(), 1U);
  EXPECT_NE(kept.report.notes[0].find("at most 4000"), std::string::npos);
  request.memory_limit = 1'000'000;
  EXPECT_LT(compile(model, request).model.edges(), model.edges());
}

TEST(Compile, GivesPagesBackLayerByLayer) {
  struct Counted final : Storage {
    Counted(Csr matrix, std::atomic<int>& count) : csr(std::move(matrix)), released(count) {}
    void release() const override { ++released; }
    Csr csr;
    std::atomic<int>& released;
  };
  std::atomic<int> released{0};
  Model model = radixnet(1024, 6);
  for (Layer& layer : model.layers) {
    Csr& w = std::get<SparseLinear>(layer).weights;
    w = Csr(w.view(), std::make_shared<Counted>(w, released));
  }
  CompileRequest request;
  request.passes = {"fold"};
  (void)compile(model, request);
  EXPECT_EQ(released, 0);
  request.release_pages = true;
  (void)compile(model, request);
  EXPECT_EQ(released, 6);
}

/// A layer that takes its time to be given back.
struct Slow final : Storage {
  explicit Slow(Csr matrix) : csr(std::move(matrix)) {}
  void release() const override { std::this_thread::sleep_for(std::chrono::milliseconds(50)); }
  Csr csr;
};

TEST(Compile, StopsWhereItIsWhenItsTimeIsUp) {
  const Model model = radixnet(1024, 6);
  const std::vector<float> image = [] {
    std::mt19937_64 random(5);
    std::vector<float> pixels(1024);
    for (float& pixel : pixels) pixel = random() % 4 == 0 ? 1.0F : 0.0F;
    return pixels;
  }();
  Model slow = model;
  Csr& w = std::get<SparseLinear>(slow.layers[2]).weights;
  w = Csr(w.view(), std::make_shared<Slow>(w));
  CompileRequest request;
  request.passes = {"fold", "unread"};
  request.release_pages = true;
  request.most_seconds = 0.04;
  const CompiledModel part = compile(slow, request);
  const CompiledModel whole = compile(model, request);
  ASSERT_EQ(part.report.passes.size(), 2U);
  EXPECT_TRUE(part.report.passes[0].stopped);
  EXPECT_EQ(part.report.notes.size(), 1U);
  EXPECT_LT(part.report.after.nonzeros, model.edges());
  EXPECT_GT(part.report.after.nonzeros, whole.report.after.nonzeros);
  const test::Evaluated expected = test::evaluate(model, image);
  const std::vector<float> got = expand_outputs(part, test::evaluate(part.model, image).canonical);
  for (std::size_t o = 0; o < got.size(); ++o) {
    EXPECT_LE(std::abs(static_cast<double>(got[o]) - expected.exact[o]), expected.bound[o]);
  }
}

TEST(Compile, APassThatDoesNotPayIsUndone) {
  const Model model = radixnet(1024, 12);  // merged, its values are no longer all the same
  CompileRequest request;
  request.passes = {"fold"};
  request.cost = {1.0, 1000.0, 6.0};
  const CompiledModel kept = compile(model, request);
  EXPECT_TRUE(same_arrays(model, kept.model));
  EXPECT_TRUE(kept.outputs.empty());
  EXPECT_TRUE(kept.report.exact);
  ASSERT_EQ(kept.report.notes.size(), 1U);
  EXPECT_NE(kept.report.notes[0].find("would cost more"), std::string::npos);
}

TEST(Compile, ThreadsMakeNoDifference) {
  const Model model = radixnet(1024, 130);  // so large that a second thread is worth it
  CompileRequest request;
  request.passes = passes_for("full");
  const CompiledModel one = compile(model, request);
  request.threads = 4;
  const CompiledModel four = compile(model, request);
  EXPECT_EQ(one.report.threads, 1);
  EXPECT_GT(four.report.threads, 1);
  EXPECT_EQ(one.outputs, four.outputs);
  for (std::int64_t l = 0; l < 130; ++l) {
    const CsrView& a = test::linear(one.model, l).weights.view();
    const CsrView& b = test::linear(four.model, l).weights.view();
    ASSERT_EQ(a.nnz, b.nnz);
    for (std::int64_t k = 0; k < a.nnz; ++k) {
      ASSERT_EQ(a.col(k), b.col(k));
      ASSERT_EQ(a.value(k), b.value(k));
    }
  }
}

TEST(Compile, UnknownPassesAreNamed) {
  try {
    (void)compile_with(radixnet(1024, 1), "fold,fuse");
    FAIL();
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what())
                  .find("'fuse'; there are fold, identity, constants, zeros, unread, reorder"),
              std::string::npos);
  }
}

TEST(Compile, SettingsStandForPasses) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(passes_for("off"), Names{});
  EXPECT_EQ(passes_for("safe"), (Names{"identity", "zeros", "unread"}));
  EXPECT_EQ(passes_for("full"), (Names{"fold", "identity", "constants", "zeros", "unread"}));
  EXPECT_EQ(passes_for("unread,fold"), (Names{"unread", "fold"}));
  for (const char* bad : {"", "fold,", ",fold", "fold unread", "Full"}) {
    EXPECT_THROW((void)passes_for(bad), InputError) << bad;
  }
}

TEST(Compile, PassesFeedEachOther) {
  // Rows 0 and 1 of layer 2 differ in an entry that is always 0; merged, they cancel in layer 3,
  // whose constant ends what reads it.
  const Model model =
      model_of({layer_of(2, {{{0, 1.0F}}, {{1, -1.0F}}, {{1, 1.0F}}}, {0.0F}, kRelu),
                layer_of(3, {{{0, 1.0F}, {1, 7.0F}}, {{0, 1.0F}}, {{2, 1.0F}}}, {0.5F}, kRelu),
                layer_of(3, {{{0, 2.0F}, {1, -2.0F}}, {{2, 1.0F}}}, {0.25F}, kRelu),
                layer_of(2, {{{0, 4.0F}, {1, 1.0F}}}, {0.0F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "fold,constants,unread");
  EXPECT_EQ(compiled.report.after.rows, 4);
  EXPECT_EQ(compiled.report.after.nonzeros, 4);
  const std::vector<float> image = {0.5F, 0.125F};
  EXPECT_EQ(test::evaluate(compiled.model, image).canonical,
            test::evaluate(model, image).canonical);
}

}  // namespace
}  // namespace spdnn
