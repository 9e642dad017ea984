// Entries that are always 0 go, and neurons that are always the same become biases.
#include <gtest/gtest.h>

#include <cmath>

#include "networks.hpp"

namespace spdnn {
namespace {

using test::compile_with;
using test::kIdentity;
using test::kInfinity;
using test::kRelu;
using test::layer_of;
using test::linear;
using test::model_of;
using test::same_arrays;

TEST(Zeros, AReluThatNeverOpensIsDropped) {
  // Inputs in [0, 1]: row 0 is at most 0.5 − 0.6, row 1 at most 0.7 − 0.6, row 2 at most 0 exactly.
  const Model model =
      model_of({layer_of(2, {{{0, 0.5F}, {1, -3.0F}}, {{0, 0.7F}}, {{0, -1.0F}}},
                         {-0.6F, -0.6F, 0.0F}, kRelu),
                layer_of(3, {{{0, 1.0F}, {1, 1.0F}, {2, 1.0F}}, {{0, 2.0F}}}, {0.5F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "zeros,unread");
  EXPECT_EQ(linear(compiled.model, 0).outputs(), 1);
  EXPECT_EQ(linear(compiled.model, 1).weights.nnz(), 1);
  EXPECT_TRUE(compiled.report.exact);
  for (const float x : {0.0F, 0.3F, 0.9F, 1.0F}) {
    EXPECT_EQ(test::evaluate(compiled.model, {x, 0.0F}).canonical,
              test::evaluate(model, {x, 0.0F}).canonical);
  }
}

TEST(Zeros, ARangeOfInputsThatIsWiderProvesLess) {
  const Model model = model_of({layer_of(1, {{{0, 0.5F}}}, {-0.6F}, kRelu)});
  CompileRequest request;
  request.passes = {"zeros"};
  EXPECT_EQ(compile(model, request).model.edges(), 0);
  request.highest_input = 2.0F;
  EXPECT_EQ(compile(model, request).model.edges(), 1);
  request.highest_input = 1.0F;
  request.lowest_input = -1.0F;
  EXPECT_EQ(compile(model, request).model.edges(), 0);
}

TEST(Zeros, NothingIsClaimedWithinRoundingOfTheEdge) {
  // 0.1 + 0.2 − 0.3 is above 0 in some orders of fp32, below in others.
  const Model model = model_of({layer_of(2, {{{0, 0.1F}, {1, 0.2F}}}, {-0.3F}, kRelu)});
  EXPECT_TRUE(same_arrays(model, compile_with(model, "zeros").model));
}

TEST(Zeros, ANeuronThatIsAlwaysClippedIsABias) {
  const Model model =
      model_of({layer_of(1, {{{0, 1.0F}}, {{0, 1.0F}}}, {40.0F, 31.5F}, {0.0F, 32.0F}),
                layer_of(2, {{{0, 1.0F}, {1, 1.0F}}}, {0.0F}, kIdentity)});
  const CompiledModel compiled = compile_with(model, "zeros,unread");
  EXPECT_EQ(linear(compiled.model, 0).weights.nnz(), 1);
  EXPECT_EQ(linear(compiled.model, 0).bias, (std::vector<float>{32.0F, 31.5F}));
  EXPECT_EQ(test::evaluate(compiled.model, {0.25F}).canonical[0], 63.75F);
  // Moved into the next bias, it is read by nobody.
  const CompiledModel moved = compile_with(model, "constants,unread");
  EXPECT_EQ(linear(moved.model, 0).outputs(), 1);
  EXPECT_EQ(linear(moved.model, 1).bias, (std::vector<float>{32.0F}));
  EXPECT_EQ(test::evaluate(moved.model, {0.25F}).canonical[0], 63.75F);
  EXPECT_FALSE(moved.report.exact);
}

TEST(Zeros, NeuronsThatReadConstantsOnlyTakeTheirChainsBits) {
  const Model model =
      model_of({layer_of(1, {{}, {}, {{0, 1.0F}}}, {0.1F, 0.7F, 0.0F}, kRelu),
                layer_of(3, {{{1, 0.3F}, {0, 1.1F}}, {{0, 1.0F}, {2, 1.0F}}}, {0.01F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "zeros");
  EXPECT_EQ(linear(compiled.model, 1).weights.nnz(), 2);
  EXPECT_EQ(linear(compiled.model, 1).bias[0],
            std::fma(1.1F, 0.1F, std::fma(0.3F, 0.7F, 0.0F)) + 0.01F);
}

TEST(Zeros, ZeroWeightsGo) {
  const Model model =
      model_of({layer_of(2, {{{0, 0.0F}, {1, 2.0F}}, {{1, -0.0F}}}, {-0.1F}, kRelu)});
  EXPECT_EQ(compile_with(model, "zeros").model.edges(), 1);
}

TEST(Zeros, WhatMayOverflowOrIsNoNumberIsLeftAlone) {
  const float nan = std::nanf("");
  for (const float bad : {nan, kInfinity, -kInfinity}) {
    // The weight meets an input that is always 0; the product is no number.
    const Model model = model_of({layer_of(1, {{}, {{0, 1.0F}}}, {-1.0F, 0.0F}, kRelu),
                                  layer_of(2, {{{0, bad}, {1, 1.0F}}}, {0.0F}, kRelu)});
    EXPECT_EQ(linear(compile_with(model, "zeros").model, 1).weights.nnz(), 2) << bad;
  }
  // ∞ − ∞ is no number, so the 0 after it is not proved, nor is a weight 0 on it droppable.
  const Model overflow =
      model_of({layer_of(1, {{{0, 3e38F}}, {{0, 3e38F}}}, {3e38F}, kRelu),
                layer_of(2, {{{0, 1.0F}, {1, -1.0F}}, {{0, 0.0F}}}, {-1.0F}, {0.0F, 32.0F}),
                layer_of(2, {{{0, 1.0F}, {1, 1.0F}}}, {0.0F}, kRelu)});
  EXPECT_TRUE(same_arrays(overflow, compile_with(overflow, "zeros").model));
  // A sum that overflows and is clipped is its clip.
  const Model clipped = model_of({layer_of(1, {{{0, 3e38F}}}, {3e38F}, {0.0F, 32.0F})});
  EXPECT_EQ(linear(compile_with(clipped, "zeros").model, 0).bias[0], 32.0F);
}

TEST(Zeros, AChainOfConstantsEndsInTheOutputs) {
  const Model model = model_of({layer_of(2, {{}, {{0, 1.0F}}}, {0.5F, 0.0F}, kRelu),
                                layer_of(2, {{{0, 2.0F}}, {{1, 1.0F}}}, {0.0F}, kRelu),
                                layer_of(2, {{{0, 3.0F}}, {{1, 1.0F}}}, {0.0F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "fold,constants,unread");
  // The constant output 3 stays an output, so that an image has a nonzero one when it had; all the
  // rest of its chain is gone.
  EXPECT_EQ(compiled.model.outputs(), 2);
  EXPECT_EQ(linear(compiled.model, 0).outputs(), 1);
  EXPECT_EQ(linear(compiled.model, 1).outputs(), 1);
  EXPECT_EQ(expand_outputs(compiled, test::evaluate(compiled.model, {0.25F, 0.0F}).canonical),
            (std::vector<float>{3.0F, 0.25F}));
}

}  // namespace
}  // namespace spdnn
