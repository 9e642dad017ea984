// Neurons that nobody reads go, chain by chain; outputs stay visible.
#include <gtest/gtest.h>

#include "networks.hpp"

namespace spdnn {
namespace {

using test::compile_with;
using test::kRelu;
using test::layer_of;
using test::linear;
using test::model_of;

TEST(Unread, ChainsThatLeadNowhereGo) {
  const Model model = model_of(
      {layer_of(3, {{{2, 1.0F}, {0, 2.0F}}, {{1, 1.0F}}, {{2, 3.0F}}}, {0.0F, 1.0F, 2.0F}, kRelu),
       layer_of(3, {{{1, 1.0F}}, {{2, 5.0F}, {0, 4.0F}}}, {0.0F}, kRelu),
       layer_of(2, {{{1, 1.0F}}}, {0.0F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "unread");
  EXPECT_EQ(linear(compiled.model, 1).outputs(), 1);
  EXPECT_EQ(linear(compiled.model, 0).outputs(), 2);
  EXPECT_EQ(linear(compiled.model, 0).inputs(), 3) << "inputs keep their numbers";
  EXPECT_EQ(linear(compiled.model, 0).bias, (std::vector<float>{0.0F, 2.0F}));
  // The order of a row's entries is kept.
  EXPECT_EQ(linear(compiled.model, 1).weights.view().col(0), 1);
  EXPECT_EQ(linear(compiled.model, 1).weights.view().value(0), 5.0);
  EXPECT_TRUE(compiled.report.exact);
  const std::vector<float> image = {0.5F, 0.25F, 1.0F};
  EXPECT_EQ(test::evaluate(compiled.model, image).canonical,
            test::evaluate(model, image).canonical);
}

TEST(Unread, OutputsThatAreAlwaysZeroAreMapped) {
  const Model model =
      model_of({layer_of(2, {{}, {{1, 1.0F}}, {}, {{0, 1.0F}}}, {-1.0F, 0.0F, 2.0F, 0.0F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "unread");
  EXPECT_EQ(compiled.outputs, (std::vector<std::int64_t>{-1, 0, 1, 2}));
  EXPECT_EQ(expand_outputs(compiled, {1.0F, 2.0F, 3.0F}),
            (std::vector<float>{0.0F, 1.0F, 2.0F, 3.0F}));
}

TEST(Unread, EveryLayerKeepsARow) {
  const Model model = model_of({layer_of(2, {{{0, 1.0F}}, {{1, 1.0F}}}, {0.0F}, kRelu),
                                layer_of(2, {{}, {}}, {-1.0F}, kRelu)});
  const CompiledModel compiled = compile_with(model, "unread");
  EXPECT_EQ(linear(compiled.model, 0).outputs(), 1);
  EXPECT_EQ(compiled.model.outputs(), 1);
  EXPECT_EQ(expand_outputs(compiled, test::evaluate(compiled.model, {1.0F, 1.0F}).canonical),
            (std::vector<float>{0.0F, 0.0F}));
}

}  // namespace
}  // namespace spdnn
