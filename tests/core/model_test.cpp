// Networks: validation, and when a dead image stays dead.
#include "spdnn/model.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace spdnn {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

SparseLinear layer(std::int64_t outputs, std::int64_t inputs, std::vector<float> bias,
                   Epilogue activation = {0.0F, 32.0F}) {
  std::vector<std::int64_t> offsets(outputs + 1, 0);
  return {make_csr(outputs, inputs, std::move(offsets), {}, {}), std::move(bias), activation};
}

Model model(std::vector<Layer> layers) { return {"test", "test", std::move(layers)}; }

TEST(Validate, AcceptsFittingLayers) {
  EXPECT_NO_THROW(validate(model({layer(4, 3, {-1.0F}), layer(2, 4, {0.0F, 1.0F})})));
}

TEST(Validate, NamesTheLayerThatDoesNotFit) {
  try {
    validate(model({layer(4, 3, {0.0F}), layer(2, 5, {0.0F})}));
    FAIL();
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("layer 2 takes 5 inputs"), std::string::npos);
  }
}

TEST(Validate, RefusesBadBiasesAndActivations) {
  EXPECT_THROW(validate(model({})), InputError);
  EXPECT_THROW(validate(model({layer(4, 3, {0.0F, 0.0F})})), InputError);
  EXPECT_THROW(validate(model({layer(4, 3, {std::nanf("")})})), InputError);
  EXPECT_THROW(validate(model({layer(4, 3, {0.0F}, {1.0F, 0.0F})})), InputError);
}

TEST(DeadStaysDead, FollowsTheBiases) {
  EXPECT_EQ(dead_stays_dead_from(model({layer(2, 2, {-1.0F}), layer(2, 2, {0.0F})})), 0);
  EXPECT_EQ(dead_stays_dead_from(model({layer(2, 2, {0.5F}), layer(2, 2, {-1.0F})})), 1);
  EXPECT_EQ(dead_stays_dead_from(model({layer(2, 2, {-1.0F}), layer(2, 2, {-1.0F, 0.1F})})), 2);
  // Without a ReLU a negative bias revives a dead image as well.
  EXPECT_EQ(dead_stays_dead_from(model({layer(2, 2, {-1.0F}, {-kInfinity, kInfinity})})), 1);
}

}  // namespace
}  // namespace spdnn
