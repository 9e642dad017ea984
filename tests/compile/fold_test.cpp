// Duplicate neurons become one, and what reads them reads the sum.
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

TEST(Fold, DuplicatesBecomeOneAndTheirColumnsAreAddedUp) {
  const Model model = model_of(
      {layer_of(3, {{{0, 1.0F}, {2, 2.0F}}, {{1, 1.0F}}, {{0, 1.0F}, {2, 2.0F}}}, {-0.5F}, kRelu),
       layer_of(3, {{{0, 3.0F}, {1, 5.0F}, {2, 4.0F}}}, {0.0F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "fold");
  ASSERT_EQ(linear(compiled.model, 0).outputs(), 2);
  const CsrView& w = linear(compiled.model, 1).weights.view();
  ASSERT_EQ(w.nnz, 2);
  EXPECT_EQ(w.value(0), 7.0);
  EXPECT_EQ(w.value(1), 5.0);
  EXPECT_TRUE(compiled.outputs.empty());
  EXPECT_FALSE(compiled.report.exact);
  EXPECT_EQ(compiled.report.before, (NetworkSize{4, 8, model.weight_bytes()}));
  EXPECT_EQ(compiled.report.after.nonzeros, 5);
}

TEST(Fold, OrderOfEntriesDoesNotHideDuplicates) {
  const Model model =
      model_of({layer_of(3, {{{2, 2.0F}, {0, 1.0F}}, {{0, 1.0F}, {2, 2.0F}}}, {0.0F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "fold");
  EXPECT_EQ(compiled.model.outputs(), 1);
  EXPECT_EQ(compiled.outputs, (std::vector<std::int64_t>{0, 0}));
  EXPECT_EQ(expand_outputs(compiled, {2.5F}), (std::vector<float>{2.5F, 2.5F}));
}

TEST(Fold, ValuesBiasAndColumnsMustAllBeEqual) {
  const Model model = model_of({layer_of(
      2, {{{0, 1.0F}}, {{0, 2.0F}}, {{1, 1.0F}}, {{0, 1.0F}}, {{0, 1.0F}, {1, 1.0F}}, {}, {}},
      {0.0F, 0.0F, 0.0F, 1.0F, 0.0F, 0.0F, 1.0F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "fold");
  EXPECT_TRUE(test::same_arrays(model, compiled.model));
  EXPECT_TRUE(compiled.report.exact);
}

TEST(Fold, DuplicatesOfDuplicatesAreFoundInOneSweep) {
  // Rows of layer 2 differ until the columns of layer 1's duplicates are one.
  const Model model = model_of(
      {layer_of(2, {{{0, 1.0F}}, {{0, 1.0F}}, {{1, 1.0F}}}, {0.1F}, kRelu),
       layer_of(3,
                {{{0, 1.0F}, {2, 1.0F}}, {{1, 1.0F}, {2, 1.0F}}, {{0, 0.5F}, {1, 0.5F}, {2, 1.0F}}},
                {0.0F}, kRelu),
       layer_of(3, {{{0, 1.0F}, {1, 1.0F}, {2, 1.0F}}}, {0.0F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "fold");
  EXPECT_EQ(linear(compiled.model, 0).outputs(), 2);
  EXPECT_EQ(linear(compiled.model, 1).outputs(), 1);
  ASSERT_EQ(linear(compiled.model, 2).weights.nnz(), 1);
  EXPECT_EQ(linear(compiled.model, 2).weights.view().value(0), 3.0);
}

TEST(Fold, WeightsThatCancelAreLeftOut) {
  const Model model = model_of({layer_of(2, {{{0, 1.0F}}, {{0, 1.0F}}}, {0.1F}, kRelu),
                                layer_of(2, {{{0, 1.5F}, {1, -1.5F}}}, {0.25F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "fold");
  EXPECT_EQ(linear(compiled.model, 1).weights.nnz(), 0);
  EXPECT_EQ(test::evaluate(compiled.model, {1.0F, 0.0F}).canonical[0], 0.25F);
}

TEST(Fold, EntriesOfOneColumnAreAddedUp) {
  const Model model =
      model_of({layer_of(2, {{{1, 1.0F}, {0, 1.0F}, {1, 2.0F}}}, {0.0F}, kIdentity)});
  const CompiledModel compiled = compile_with(model, "fold");
  const CsrView& w = linear(compiled.model, 0).weights.view();
  ASSERT_EQ(w.nnz, 2);
  EXPECT_EQ(w.value(1), 3.0);
}

TEST(Fold, SumsOfSharedValuesAreSharedAgain) {
  const Model model =
      model_of({layer_of(2, {{{0, 1.0F}}, {{1, 1.0F}}, {{0, 1.0F}}, {{1, 1.0F}}}, {0.0F}, kRelu),
                layer_of(4, {{{0, 0.5F}, {1, 0.5F}, {2, 0.5F}, {3, 0.5F}}, {{0, 0.5F}, {2, 0.5F}}},
                         {0.0F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "fold");
  EXPECT_TRUE(linear(compiled.model, 1).weights.view().shared_value);
  EXPECT_EQ(linear(compiled.model, 1).weights.view().value(0), 1.0);
  EXPECT_EQ(linear(compiled.model, 1).weights.view().index_type, DType::u16);
}

TEST(Fold, WeightsWhoseSumLeavesFp32KeepTheNetwork) {
  // With an input of 0 the sum would be ∞ · 0, which is no number.
  const Model model = model_of({layer_of(2, {{{0, 1.0F}}, {{0, 1.0F}}, {{1, 1.0F}}}, {0.0F}, kRelu),
                                layer_of(3, {{{0, 3e38F}, {1, 3e38F}, {2, 1.0F}}}, {0.0F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "fold");
  EXPECT_TRUE(test::same_arrays(model, compiled.model));
  EXPECT_TRUE(compiled.report.exact);
  ASSERT_EQ(compiled.report.notes.size(), 1U);
  EXPECT_NE(compiled.report.notes[0].find("range of fp32"), std::string::npos);
}

}  // namespace
}  // namespace spdnn
