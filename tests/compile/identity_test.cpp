// Layers that only pass values on go; what reads them reads what they read.
#include <gtest/gtest.h>

#include "networks.hpp"

namespace spdnn {
namespace {

using test::compile_with;
using test::kIdentity;
using test::kRelu;
using test::layer_of;
using test::linear;
using test::model_of;
using test::same_arrays;

const std::vector<float> kImage = {0.5F, 0.25F};

TEST(Identity, InTheMiddleTheNextLayerReadsWhatItRead) {
  const Model model =
      model_of({layer_of(2, {{{0, 1.0F}}, {{1, 3.0F}}, {{0, 2.0F}, {1, 1.0F}}}, {0.5F}, kRelu),
                layer_of(3, {{{2, 1.0F}}, {{0, 1.0F}}, {{2, 1.0F}}}, {0.0F}, kRelu),
                layer_of(3, {{{2, 5.0F}, {1, 3.0F}, {0, 4.0F}}}, {0.0F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "identity");
  ASSERT_EQ(compiled.model.layers.size(), 2U);
  EXPECT_EQ(compiled.layers, (std::vector<Range>{{0, 1}, {1, 3}}));
  EXPECT_TRUE(compiled.report.exact);
  // Entries keep their order, though two read the same neuron now.
  const CsrView& w = linear(compiled.model, 1).weights.view();
  EXPECT_EQ(w.col(0), 2);
  EXPECT_EQ(w.col(1), 0);
  EXPECT_EQ(w.col(2), 2);
  EXPECT_EQ(test::evaluate(compiled.model, kImage).canonical,
            test::evaluate(model, kImage).canonical);
}

TEST(Identity, InFrontInputsKeepTheirNumbers) {
  const Model model = model_of({layer_of(2, {{{1, 1.0F}}}, {0.0F}, {0.0F, 1.0F}),
                                layer_of(1, {{{0, 2.0F}}}, {0.5F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "identity");
  ASSERT_EQ(compiled.model.layers.size(), 1U);
  EXPECT_EQ(compiled.model.inputs(), 2);
  EXPECT_EQ(test::evaluate(compiled.model, kImage).canonical, std::vector<float>{1.0F});
}

TEST(Identity, AtTheEndOutputsAreFoundElsewhere) {
  const SparseLinear first = layer_of(2, {{{0, 1.0F}}, {{1, 3.0F}}}, {0.5F}, kRelu);
  const Model model = model_of({first, layer_of(2, {{{1, 1.0F}}, {{0, 1.0F}}}, {0.0F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "identity");
  ASSERT_EQ(compiled.model.layers.size(), 1U);
  EXPECT_EQ(compiled.layers, (std::vector<Range>{{0, 2}}));
  EXPECT_EQ(compiled.outputs, (std::vector<std::int64_t>{1, 0}));
  EXPECT_EQ(expand_outputs(compiled, test::evaluate(compiled.model, kImage).canonical),
            test::evaluate(model, kImage).canonical);
  // One that hides an output must stay: an image lives by the outputs of the network given.
  const Model hides = model_of({first, layer_of(2, {{{1, 1.0F}}}, {0.0F}, kRelu)});
  EXPECT_TRUE(same_arrays(hides, compile_with(hides, "identity").model));
}

TEST(Identity, WhatChangesAValueStays) {
  const SparseLinear first = layer_of(2, {{{0, 4.0F}}, {{1, -3.0F}}}, {0.5F}, kIdentity);
  const SparseLinear last = layer_of(2, {{{0, 1.0F}, {1, 2.0F}}}, {0.0F}, kRelu);
  const std::vector<test::Row> straight = {{{0, 1.0F}}, {{1, 1.0F}}};
  const std::vector<SparseLinear> all = {
      layer_of(2, straight, {0.0F}, kRelu),                           // −3·x may be below 0
      layer_of(2, straight, {0.0F}, {-4.0F, 4.0F}),                   // 4·x + 0.5 may be above 4
      layer_of(2, straight, {0.0F, 0.1F}, kIdentity),                 // a bias
      layer_of(2, {{{0, 1.0F}}, {{1, 2.0F}}}, {0.0F}, kIdentity),     // a weight
      layer_of(2, {{{0, 1.0F}}, {}}, {0.0F}, kIdentity),              // a row without an entry
      layer_of(2, {{{0, 1.0F}, {1, 1.0F}}, {}}, {0.0F}, kIdentity)};  // and one with two
  for (const SparseLinear& middle : all) {
    const Model model = model_of({first, middle, last});
    EXPECT_TRUE(same_arrays(model, compile_with(model, "identity").model));
  }
  const Model passes = model_of({first, layer_of(2, straight, {0.0F}, {-4.0F, 5.0F}), last});
  EXPECT_EQ(compile_with(passes, "identity").model.layers.size(), 2U);
}

TEST(Identity, ANetworkOfNothingElseKeepsALayer) {
  const SparseLinear swap = layer_of(2, {{{1, 1.0F}}, {{0, 1.0F}}}, {0.0F}, kRelu);
  const CompiledModel compiled = compile_with(model_of({swap, swap, swap}), "identity");
  ASSERT_EQ(compiled.model.layers.size(), 1U);
  EXPECT_EQ(expand_outputs(compiled, test::evaluate(compiled.model, kImage).canonical),
            (std::vector<float>{0.25F, 0.5F}));
}

}  // namespace
}  // namespace spdnn
