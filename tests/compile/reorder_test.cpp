// Neurons that are read together stand together, and every bit stays.
#include <gtest/gtest.h>

#include "networks.hpp"

namespace spdnn {
namespace {

using test::compile_with;
using test::kRelu;
using test::layer_of;
using test::linear;
using test::model_of;

TEST(Reorder, ColumnsOfTheSameReadersBecomeAdjacent) {
  const Model model = model_of(
      {layer_of(2, {{{0, 1.0F}}, {{1, 2.0F}}, {{0, 3.0F}}, {{1, 4.0F}}}, {0.1F, 0.2F, 0.3F, 0.4F},
                kRelu),
       layer_of(4, {{{3, 1.0F}, {1, 2.0F}}, {{2, 3.0F}, {0, 4.0F}}, {{1, 5.0F}, {3, 6.0F}}}, {0.0F},
                kRelu)});
  const CompiledModel compiled = compile_with(model, "reorder");
  EXPECT_TRUE(compiled.report.exact);
  EXPECT_TRUE(compiled.outputs.empty());
  // Rows 0 and 2 read neurons 1 and 3, which come first; row 1 reads 0 and 2.
  EXPECT_EQ(linear(compiled.model, 0).bias, (std::vector<float>{0.2F, 0.4F, 0.1F, 0.3F}));
  const CsrView& w = linear(compiled.model, 1).weights.view();
  std::vector<std::int64_t> cols;
  for (std::int64_t k = 0; k < w.nnz; ++k) cols.push_back(w.col(k));
  EXPECT_EQ(cols, (std::vector<std::int64_t>{1, 0, 3, 2, 0, 1})) << "in their stored order";
  EXPECT_EQ(w.value(0), 1.0);
  const std::vector<float> image = {0.5F, 0.25F};
  EXPECT_EQ(test::evaluate(compiled.model, image).canonical,
            test::evaluate(model, image).canonical);
  EXPECT_TRUE(test::same_arrays(compiled.model, compile_with(compiled.model, "reorder").model));
}

TEST(Reorder, RunsOnlyWhereItIsNamed) {
  for (const char* setting : {"safe", "full"}) {
    for (const std::string& pass : passes_for(setting)) EXPECT_NE(pass, "reorder");
  }
  EXPECT_EQ(passes_for("reorder,fold"), (std::vector<std::string>{"reorder", "fold"}));
}

}  // namespace
}  // namespace spdnn
