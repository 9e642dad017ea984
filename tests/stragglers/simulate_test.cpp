// The simulation against what can be computed by hand, and against what no schedule can break.
#include "stragglers/simulate.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace spdnn::bench {
namespace {

constexpr std::int64_t kBatch = 32;

/// A plan over segments of one layer each for equal shares; pools on.
Plan make_plan_of(std::int64_t images, std::int64_t ranks, std::int64_t segments) {
  Plan plan;
  plan.speeds.assign(static_cast<std::size_t>(ranks), 1.0);
  plan.images = split_in_proportion(images, plan.speeds);
  plan.grain = kSideBySide;
  plan.batch.assign(static_cast<std::size_t>(ranks), kBatch);
  plan.pools.assign(static_cast<std::size_t>(ranks), true);
  for (std::int64_t s = 0; s < segments; ++s) plan.segments.push_back({s, 1, {}, {}, {}, {}, {}});
  plan.worth_help_s = 0.0;
  return plan;
}

void use(Strategy strategy, Plan& plan) {
  if (strategy == Strategy::task_manager) plan.sharing = Sharing::common;
  if (strategy == Strategy::task_stealing || strategy == Strategy::data_then_model) {
    plan.sharing = Sharing::stealing;
  }
  if (strategy == Strategy::data_then_model) {
    plan.helping = Helping::images_then_rows;
    plan.rebalance_rows = true;
  }
  if (strategy == Strategy::model) {
    plan.helping = Helping::rows;
    const std::int64_t images = plan.images.back().end;
    plan.images.assign(plan.images.size(), {images, images});
    plan.images[0] = {0, images};
  }
}

/// A second for each group of images and segment, and nothing else.
StepCosts unit_costs(std::int64_t segments) {
  StepCosts costs;
  costs.steady.segment_s.assign(static_cast<std::size_t>(segments), {0.0, 1.0, 2.0});
  costs.drowsy = costs.steady;
  costs.segment_edges.assign(static_cast<std::size_t>(segments), 1.0);
  return costs;
}

double busy(const SimulatedRun& run, const std::vector<double>& slowdowns) {
  double sum = 0.0;
  for (std::size_t r = 0; r < slowdowns.size(); ++r) sum += run.ranks[r].busy_s / slowdowns[r];
  return sum;
}

TEST(Simulate, OneRankTakesTheSumOfItsSegments) {
  const Plan plan = make_plan_of(64, 1, 3);
  // Half of the images die in segment 0: the survivors of both batches fill one of their own.
  std::vector<std::int32_t> last(64, 3);
  for (std::size_t i = 0; i < last.size(); i += 2) last[i] = 0;
  StepCosts costs = unit_costs(3);
  costs.steady.load_s = 0.25;
  costs.steady.pack_s = 0.5;
  costs.finish_s = 7.0;
  const SimulatedRun run = simulate(plan, last, {1.0}, costs);
  const double segments = 2.0 * 2.0 + 2.0 * 2.0;  // two batches once, one batch of survivors twice
  EXPECT_DOUBLE_EQ(run.seconds, 64 * 0.25 + 32 * 0.5 + segments + 32 * 0.5 + 7.0);
  EXPECT_DOUBLE_EQ(run.ranks[0].busy_s, run.seconds - 7.0);
  EXPECT_EQ(run.ranks[0].begun, 64);
}

TEST(Simulate, DataWaitsForTheSlowRankAndStealingDoesNot) {
  const std::vector<std::int32_t> last(1024, 4);
  const std::vector<double> slowdowns = {1.0, 3.0};
  const StepCosts costs = unit_costs(4);
  Plan plan = make_plan_of(1024, 2, 4);
  const SimulatedRun data = simulate(plan, last, slowdowns, costs);
  EXPECT_DOUBLE_EQ(data.seconds, 3.0 * 32 * 4);
  EXPECT_DOUBLE_EQ(data.ranks[0].idle_s, 2.0 * 32 * 4);
  use(Strategy::task_stealing, plan);
  const SimulatedRun stealing = simulate(plan, last, slowdowns, costs);
  EXPECT_LE(stealing.seconds, 64 * 4 / (1.0 + 1.0 / 3.0) + 3.0 * 2 * 4);  // a batch over
  EXPECT_GT(stealing.ranks[0].taken_over, 0);
}

TEST(Simulate, ASlowedRankWorksAsOneThatSleepsAfterEachSegment) {
  const std::vector<std::int32_t> last(64, 4);
  StepCosts costs = unit_costs(4);
  costs.drowsy.segment_s.assign(4, {0.0, 1.5, 2.5});
  costs.drowsy.load_s = 0.125;
  costs.step_s = 0.25;
  const SimulatedRun run = simulate(make_plan_of(64, 2, 4), last, {1.0, 2.0}, costs);
  EXPECT_DOUBLE_EQ(run.ranks[0].busy_s, 4 * (2.0 + 0.25));
  EXPECT_DOUBLE_EQ(run.ranks[1].busy_s, 2.0 * (32 * 0.125 + 4 * (2.5 + 0.25)));
}

TEST(Simulate, ModelMeetsAfterEveryLayer) {
  Plan plan = make_plan_of(32, 4, 5);
  use(Strategy::model, plan);
  StepCosts costs = unit_costs(5);
  const std::vector<std::int32_t> last(32, 5);
  const std::vector<double> equal(4, 1.0);
  EXPECT_DOUBLE_EQ(simulate(plan, last, equal, costs).seconds, 5 * 2.0 / 4.0);
  costs.meet_s = 0.125;  // before each step and after each layer, of four ranks
  EXPECT_DOUBLE_EQ(simulate(plan, last, equal, costs).seconds, 5 * 2.0 / 4.0 + 5 * 2 * 3 * 0.125);
  costs.meet_s = 0.0;
  const SimulatedRun uneven = simulate(plan, last, {1.0, 1.0, 2.0, 1.0}, costs);
  EXPECT_DOUBLE_EQ(uneven.seconds, 5 * 2.0 * 2.0 / 4.0);  // rows stay even
  EXPECT_DOUBLE_EQ(uneven.ranks[1].busy_s, 5 * 2.0 / 4.0);
  EXPECT_EQ(uneven.ranks[3].helped_segments, 5);
  // The slow rank wakes after each layer, which one group alone tells; caches go cold in no crew.
  costs.drowsy.segment_s.assign(5, {0.0, 1.5, 200.0});
  EXPECT_DOUBLE_EQ(simulate(plan, last, {1.0, 1.0, 2.0, 1.0}, costs).seconds,
                   5 * 2.0 * (2.0 / 4.0 + 0.5));
  EXPECT_DOUBLE_EQ(simulate(plan, last, equal, costs).seconds, 5 * 2.0 / 4.0);
}

TEST(Simulate, ARankHelpsWithImagesUnderWayAndThenWithRows) {
  Plan plan = make_plan_of(64, 2, 10);
  std::vector<std::int32_t> last(64, 10);
  for (std::size_t i = 32; i < 64; ++i) last[i] = 0;  // rank 1 has nothing left after one segment
  const StepCosts costs = unit_costs(10);
  const double alone = simulate(plan, last, {1.0, 1.0}, costs).seconds;
  EXPECT_DOUBLE_EQ(alone, 20.0);
  use(Strategy::data_then_model, plan);
  const SimulatedRun helped = simulate(plan, last, {1.0, 1.0}, costs);
  EXPECT_EQ(helped.ranks[1].taken_over, 16);
  // Rank 1 becomes idle at the same time as rank 0 begins segment 1, and so is found after it.
  EXPECT_DOUBLE_EQ(helped.seconds, 2.0 * 2.0 + 8.0);
  const SimulatedRun slow = simulate(plan, last, {9.0, 1.0}, costs);
  EXPECT_GT(slow.ranks[1].helped_segments, 0);  // the last group of the slow rank
  EXPECT_LT(slow.seconds, 18.0 + 9.0 * 9.0);
}

TEST(Simulate, NoWorkIsLostOrDoneTwiceWhateverTheSpeeds) {
  for (std::uint32_t round = 0; round < 100; ++round) {
    std::mt19937 random(round);
    const std::int64_t images = 1 + static_cast<std::int64_t>(random() % 700);
    const std::int64_t ranks = 1 + static_cast<std::int64_t>(random() % 9);
    std::vector<std::int32_t> last(static_cast<std::size_t>(images));
    for (std::int32_t& segment : last) segment = static_cast<std::int32_t>(random() % 8);
    std::vector<double> slowdowns(static_cast<std::size_t>(ranks));
    for (double& slowdown : slowdowns) slowdown = 1.0 + static_cast<double>(random() % 5);
    for (const Strategy strategy : {Strategy::data, Strategy::model, Strategy::task_manager,
                                    Strategy::task_stealing, Strategy::data_then_model}) {
      SCOPED_TRACE(testing::Message() << "round " << round << ", " << to_string(strategy));
      Plan plan = make_plan_of(images, ranks, 7);
      use(strategy, plan);
      StepCosts costs = unit_costs(7);
      costs.wake_s = 0.125;
      const SimulatedRun run = simulate(plan, last, slowdowns, costs);
      std::int64_t begun = 0;
      for (const SimulatedRank& rank : run.ranks) {
        begun += rank.begun;
        EXPECT_GE(rank.busy_s, 0.0);
        EXPECT_NEAR(rank.busy_s + rank.idle_s, run.seconds, 1e-9);
      }
      EXPECT_EQ(begun, images);
      // Each image lives through segment `last` at most, and a group holds that many images.
      double least = 0.0;
      for (const std::int32_t segment : last) least += std::min(segment + 1, 7) / 16.0;
      EXPECT_GE(busy(run, slowdowns), least - 1e-9);
      EXPECT_EQ(simulate(plan, last, slowdowns, costs).seconds, run.seconds);
      if (HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace spdnn::bench
