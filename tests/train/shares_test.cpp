// Uneven shares of each batch: the same training, whoever has how many images, and shares that
// follow devices that become slower.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "batch_shares.hpp"
#include "train/images.hpp"

namespace spdnn {
namespace {

using test::cpu_ranks;
using test::made_up_images;
using test::parameters_of;

/// Wide enough that images cost more than steps do by themselves.
TrainSpec wide_spec() {
  TrainSpec spec = test::small_spec();
  spec.layers[0].outputs = spec.layers[1].outputs = 256;
  spec.layers[0].density = spec.layers[1].density = 0.5;
  spec.epochs = 1;
  spec.batch = 384;
  spec.optimizer.kind = OptimizerKind::sgd;
  spec.optimizer.rate = 0.02;
  return spec;
}

/// The largest difference of two lists of parameters.
double difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0.0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return most;
}

TEST(BatchShares, SmallStepsFitWholeOnes) {
  run_ranks(3, [](Communicator& comm) {
    const train::BatchShares shares(comm, {96, 64, 40}, 32, std::nullopt);
    for (std::int64_t images = 0; images <= 200; ++images) {
      const Range own = shares.of(images);
      EXPECT_LE(own.size(), shares.most());
      EXPECT_GE(own.size(), 0);
      std::int64_t sum = own.size();
      comm.all_reduce(&sum, &sum, 1, DType::i64, Reduction::sum, nullptr);
      EXPECT_EQ(sum, images);
    }
    const std::vector<Range> all = shares.of_all(450, 200);
    ASSERT_EQ(all.size(), 3U);
    EXPECT_EQ(all[1].begin - all[0].begin, 200);
  });
}

/// The loss of a step is divided by all its images, and sums over the ranks are only ordered
/// otherwise: every split gives the parameters of one rank up to rounding.
TEST(UnevenShares, TrainTheSameNetwork) {
  TrainSpec spec = wide_spec();
  const LabelledImages train = made_up_images(1000, 1);
  const std::vector<float> one =
      parameters_of(train_network(spec, train, {}, cpu_ranks(1), {}).model);
  for (const std::vector<double>& ratios :
       {std::vector<double>{1, 1, 1}, {8, 3, 1}, {1, 0, 5}, {1, 100, 1}}) {
    spec.split = {SplitKind::ratios, ratios};
    const TrainResult result = train_network(spec, train, {}, cpu_ranks(3), {});
    EXPECT_LT(difference(one, parameters_of(result.model)), 1e-5);
    EXPECT_EQ(std::accumulate(result.rank_images.begin(), result.rank_images.end(), 0L), 1000);
    EXPECT_EQ(result.rank_images[1] == 0, ratios[1] == 0.0);
  }
}

TEST(UnevenShares, RefusesRatiosThatDoNotFit) {
  TrainSpec spec = wide_spec();
  spec.split = {SplitKind::ratios, {1, 2}};
  EXPECT_THROW(static_cast<void>(train_network(spec, made_up_images(400, 1), {}, cpu_ranks(3), {})),
               InputError);
}

/// The device becomes so slow that no other work on the machine hides it; how close shares come,
/// and how soon, is tested on invented times.
TEST(UnevenShares, MoveAwayFromADeviceThatBecomesSlower) {
  TrainSpec spec = wide_spec();
  spec.epochs = 12;
  spec.split = {SplitKind::profiled, {}};
  const LabelledImages train = made_up_images(3 * spec.batch, 1);
  std::vector<DeviceSpec> devices = cpu_ranks(2);
  devices[0].slowdown = devices[1].slowdown = 2.0;
  devices[1].slowdown_changes = {{9.0, 60.0}};
  const TrainCosts costs = test::invented_costs(spec, devices.size());
  std::vector<StepReport> steps;
  TrainHooks hooks;
  hooks.costs = &costs;
  hooks.step = [&](const StepReport& step) { steps.push_back(step); };
  const TrainResult result = train_network(spec, train, {}, devices, hooks);
  ASSERT_EQ(steps.size(), 36U) << "no step is lost";
  for (std::size_t i = 0; i < steps.size(); ++i) {
    EXPECT_EQ(steps[i].step, static_cast<std::int64_t>(i));
    EXPECT_EQ(steps[i].images[0] + steps[i].images[1], spec.batch);
  }
  EXPECT_EQ(steps.front().images[0], spec.batch / 2);
  EXPECT_GT(steps.back().images[0], spec.batch / 2);
  EXPECT_GE(result.shares.size(), 2U);

  TrainSpec even = spec;
  even.split = {SplitKind::even, {}};
  const TrainResult undisturbed = train_network(even, train, {}, cpu_ranks(2), {});
  EXPECT_LT(difference(parameters_of(undisturbed.model), parameters_of(result.model)), 1e-4);
}

TEST(UnevenShares, ADeviceThatOnlyHoldsOthersUpIsLeftOut) {
  TrainSpec spec = wide_spec();
  spec.split = {SplitKind::profiled, {}};
  std::vector<DeviceSpec> devices = cpu_ranks(3);
  devices[0].slowdown = devices[2].slowdown = 2.0;
  devices[1].slowdown = 100.0;
  const TrainCosts costs = test::invented_costs(spec, devices.size());
  TrainHooks hooks;
  hooks.costs = &costs;
  const TrainResult result = train_network(spec, made_up_images(800, 1), {}, devices, hooks);
  EXPECT_EQ(result.rank_images[1], 0);
  EXPECT_GT(result.rank_images[0], 0);
  EXPECT_GT(result.rank_images[2], 0);
  ASSERT_FALSE(result.notes.empty());
  EXPECT_NE(result.notes.back().find("rank 1 is left out"), std::string::npos);
}

}  // namespace
}  // namespace spdnn
