// Uneven shares of each batch: the same training, whoever has how many images, and shares that
// follow devices that become slower.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "batch_shares.hpp"
#include "meeting_times.hpp"
#include "support/scratch.hpp"
#include "topology.hpp"
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
       {std::vector<double>{1, 1, 1}, {8, 3, 1}, {1, 0, 5}, {0, 2, 1}, {1, 100, 1}}) {
    spec.split = {SplitKind::ratios, ratios};
    const TrainResult result = train_network(spec, train, {}, cpu_ranks(3), {});
    EXPECT_LT(difference(one, parameters_of(result.model)), 1e-5);
    EXPECT_EQ(std::accumulate(result.rank_images.begin(), result.rank_images.end(), 0L), 1000);
    for (std::size_t r = 0; r < ratios.size(); ++r) {
      if (ratios[r] > 0.0) continue;
      EXPECT_EQ(result.rank_images[r], 0);
      EXPECT_EQ(result.rank_seconds[r], 0.0) << "it has no part in the steps";
    }
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
  devices[1].slowdown_changes = {{9.0, 30.0}};
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
  EXPECT_EQ(result.rank_images[0] + result.rank_images[1], std::ssize(steps) * spec.batch)
      << "whoever computed them";

  TrainSpec even = spec;
  even.split = {SplitKind::even, {}};
  const TrainResult undisturbed = train_network(even, train, {}, cpu_ranks(2), {});
  EXPECT_LT(difference(parameters_of(undisturbed.model), parameters_of(result.model)), 1e-4);
}

TEST(Spreads, StandForTheTimesThatTheyAreOf) {
  std::vector<double> times(128, 2.0);
  EXPECT_EQ(train::spread_of(times), std::vector<double>(8, 1.0));
  times[17] = 1e9;  // one that another program made long
  EXPECT_EQ(train::spread_of(times), std::vector<double>(8, 1.0));
  for (std::size_t i = 0; i < times.size(); ++i) times[i] = static_cast<double>((i * 37) % 128);
  const std::vector<double> even = train::spread_of(times);
  ASSERT_EQ(even.size(), 8U);
  for (std::size_t part = 0; part < 8; ++part) {
    EXPECT_NEAR(even[part], static_cast<double>(2 * part + 1) / 8.0, 1e-9);
  }
  EXPECT_TRUE(train::spread_of(std::vector<double>(128, 0.0)).empty());
}

TEST(Spreads, AreMeasuredTogetherAndRemembered) {
  const test::ScratchDir folder;
  TrainSpec spec = wide_spec();
  spec.profile_cache = folder.path() / "profile.json";
  const std::vector<train::TrainLayer> layers =
      train::make_layers(spec, train::Planes(1, 6, 6), {});
  std::vector<std::vector<double>> first, second;
  for (auto* spreads : {&first, &second}) {
    run_ranks(3, [&](Communicator& comm) {
      const std::unique_ptr<Device> device = open_device({});
      auto found = train::measure_spreads(spec, layers, comm, *device);
      if (comm.rank() == 0) *spreads = std::move(found);
    });
  }
  ASSERT_EQ(first.size(), 3U);
  for (const std::vector<double>& spread : first) {
    EXPECT_TRUE(std::is_sorted(spread.begin(), spread.end()));
    EXPECT_NEAR(std::accumulate(spread.begin(), spread.end(), 0.0),
                static_cast<double>(spread.size()), 1e-9);
  }
  // Devices of one kind have one entry, that of whoever wrote last.
  EXPECT_EQ(second[0], second[1]);
  EXPECT_NE(std::find(first.begin(), first.end(), second[0]), first.end());
}

TEST(UnevenShares, ADeviceThatOnlyHoldsOthersUpIsLeftOut) {
  TrainSpec spec = wide_spec();
  spec.split = {SplitKind::profiled, {}};
  const TrainCosts costs = test::invented_costs(spec, 3);
  TrainHooks hooks;
  hooks.costs = &costs;
  for (const std::size_t slow : {1U, 0U}) {
    std::vector<DeviceSpec> devices = cpu_ranks(3);
    for (DeviceSpec& device : devices) device.slowdown = 2.0;
    devices[slow].slowdown = 100.0;
    const TrainResult result = train_network(spec, made_up_images(800, 1), {}, devices, hooks);
    for (std::size_t r = 0; r < devices.size(); ++r) {
      EXPECT_EQ(result.rank_images[r] > 0, r != slow);
      EXPECT_EQ(result.rank_seconds[r] > 0.0, r != slow);
    }
    ASSERT_FALSE(result.notes.empty());
    EXPECT_NE(result.notes.front().find(fmt::format("rank {} is left out", slow)),
              std::string::npos);
    EXPECT_EQ(result.notes.back().find("rank 1 writes what all learn") == 0, slow == 0);
  }
}

}  // namespace
}  // namespace spdnn
