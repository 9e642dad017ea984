// Shares by cost against exhaustive search, and the feedback of measured times.
#include "spdnn/balance.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <numeric>
#include <random>

#include "spdnn/error.hpp"

namespace spdnn {
namespace {

RankCost linear(double seconds_per_item, double fixed = 0.0) {
  RankCost cost;
  cost.curve = CostCurve({{0, fixed}, {100, fixed + 100.0 * seconds_per_item}});
  return cost;
}

std::int64_t sum(const std::vector<std::int64_t>& shares) {
  return std::accumulate(shares.begin(), shares.end(), std::int64_t{0});
}

/// Ranks whose speeds span three orders of magnitude; small counts cost more an item.
std::vector<RankCost> random_ranks(std::mt19937_64& random, std::size_t count, std::int64_t items) {
  std::uniform_real_distribution<double> exponent(-6.0, -3.0);
  std::uniform_real_distribution<double> part(0.0, 1.0);
  std::vector<RankCost> ranks(count);
  std::int64_t room = 0;
  for (RankCost& rank : ranks) {
    const double each = std::pow(10.0, exponent(random));
    const double fixed = part(random) < 0.5 ? 0.0 : each * 10.0 * part(random);
    rank.curve =
        CostCurve({{1, fixed + 2.0 * each}, {8, fixed + 10.0 * each}, {64, fixed + 64.0 * each}});
    if (part(random) < 0.3) rank.most = 1 + static_cast<std::int64_t>(random() % items);
    room += std::min(rank.most, items);
  }
  if (room < items) ranks[random() % count].most = items;
  return ranks;
}

/// The least time of any shares, by trying all of them.
double exhaustive(std::span<const RankCost> ranks, std::int64_t items,
                  const std::function<double(std::int64_t)>& communication) {
  double best = std::numeric_limits<double>::infinity();
  const std::function<void(std::size_t, std::int64_t, double, std::int64_t)> place =
      [&](std::size_t r, std::int64_t left, double work, std::int64_t team) {
        if (r == ranks.size()) {
          if (left == 0) best = std::min(best, work + communication(team));
          return;
        }
        const std::int64_t least = r + 1 == ranks.size() ? left : 0;
        for (std::int64_t share = least; share <= std::min(left, ranks[r].most); ++share) {
          place(r + 1, left - share, share > 0 ? std::max(work, ranks[r].at(share)) : work,
                team + (share > 0 ? 1 : 0));
        }
      };
  place(0, items, 0.0, 0);
  return best;
}

TEST(CostCurve, InterpolatesAndInverts) {
  const CostCurve curve({{8, 10.0}, {1, 3.0}, {64, 66.0}});
  EXPECT_DOUBLE_EQ(curve.at(0), 0.0);
  EXPECT_DOUBLE_EQ(curve.at(1), 3.0);
  EXPECT_DOUBLE_EQ(curve.at(36), 38.0);
  EXPECT_DOUBLE_EQ(curve.at(128), 130.0);
  for (std::int64_t n = 1; n < 300; ++n) {
    EXPECT_EQ(curve.within(curve.at(n)), n);
    EXPECT_EQ(curve.within(std::nextafter(curve.at(n), 0.0)), n - 1);
  }
  EXPECT_THROW(CostCurve(std::vector<CostCurve::Point>()), InputError);
}

TEST(ShareByCost, RanksFinishTogether) {
  const std::vector<RankCost> ranks = {linear(2e-3), linear(4e-3), linear(8e-3), linear(16e-3)};
  EXPECT_EQ(share_by_cost(60, 1, ranks), (std::vector<std::int64_t>{32, 16, 8, 4}));
  EXPECT_EQ(share_by_cost(480, 1, ranks), (std::vector<std::int64_t>{256, 128, 64, 32}));
  EXPECT_EQ(sum(share_by_cost(200, 32, ranks)), 200);
}

TEST(ShareByCost, LeavesOutWhoseFirstGrainIsTooSlow) {
  const std::vector<RankCost> ranks = {linear(1e-3), linear(1.0)};
  EXPECT_EQ(share_by_cost(64, 32, ranks), (std::vector<std::int64_t>{64, 0}));
}

TEST(ShareByCost, SaysWhenThereIsNoRoom) {
  std::vector<RankCost> ranks = {linear(1e-3), linear(1e-3)};
  ranks[0].most = ranks[1].most = 10;
  EXPECT_EQ(share_by_cost(20, 1, ranks), (std::vector<std::int64_t>{10, 10}));
  EXPECT_THROW(static_cast<void>(share_by_cost(21, 1, ranks)), InputError);
}

TEST(ChooseRanks, LeavesOutADeviceThatCostsMoreThanItGives) {
  const std::vector<RankCost> ranks = {linear(1e-3), linear(1e-3), linear(50e-3)};
  const auto free = [](std::int64_t) { return 0.0; };
  const auto dear = [](std::int64_t k) { return 6e-3 * static_cast<double>(k - 1); };
  EXPECT_TRUE(choose_ranks(1000, 1, ranks, free).takes_part[2]);
  const SharePlan plan = choose_ranks(1000, 1, ranks, dear);
  EXPECT_EQ(plan.shares, (std::vector<std::int64_t>{500, 500, 0}));
  EXPECT_FALSE(plan.takes_part[2]);
  EXPECT_NEAR(plan.seconds(), 506e-3, 1e-6);
}

/// 10,000 sets of 1–64 devices: always feasible; no better plan by exhaustive search where that can
/// be done; a faster device never makes the plan worse.
TEST(ChooseRanks, HoldsForRandomDevices) {
  constexpr std::uint64_t kSeed = 20211;
  std::mt19937_64 random(kSeed);
  for (int round = 0; round < 10'000; ++round) {
    const std::size_t count = 1 + random() % 64;
    const auto items = static_cast<std::int64_t>(1 + random() % 64);
    const double latency = std::pow(10.0, -7.0 + 4.0 * static_cast<double>(random() % 100) / 100.0);
    const CollectiveCost link{latency, 1e-9};
    const auto communication = [&](std::int64_t k) { return link.all_reduce(k, 1e5); };
    std::vector<RankCost> ranks = random_ranks(random, count, items);
    const SharePlan plan = choose_ranks(items, 1, ranks, communication);
    ASSERT_EQ(sum(plan.shares), items) << "round " << round << ", seed " << kSeed;
    for (std::size_t r = 0; r < count; ++r) {
      ASSERT_GE(plan.shares[r], 0);
      ASSERT_LE(plan.shares[r], ranks[r].most);
    }
    if (count <= 3 || (count == 4 && items <= 24)) {
      ASSERT_LE(plan.seconds(), 1.001 * exhaustive(ranks, items, communication));
    }
    ranks[random() % count].factor = 1.0 / (1.0 + static_cast<double>(random() % 100) / 10.0);
    ASSERT_LE(choose_ranks(items, 1, ranks, communication).seconds(), 1.01 * plan.seconds())
        << "round " << round << ", seed " << kSeed;
  }
}

TEST(Balancer, FollowsADeviceThatBecomesSlower) {
  const std::vector<RankCost> ranks = {linear(1e-3), linear(1e-3), linear(1e-3)};
  Balancer balancer(300, 1, ranks);
  EXPECT_EQ(balancer.shares(), (std::vector<std::int64_t>{100, 100, 100}));
  std::mt19937_64 random(5);
  std::uniform_real_distribution<double> noise(1.0, 1.03);
  double slowdown = 1.0;
  const auto step = [&] {
    const std::vector<std::int64_t> shares = balancer.shares();
    std::vector<double> seconds;
    for (std::size_t r = 0; r < 3; ++r) {
      seconds.push_back(ranks[r].at(shares[r]) * (r == 1 ? slowdown : 1.0) * noise(random));
    }
    return balancer.observe(shares, seconds);
  };
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(step()) << "noise alone moves nothing";
  slowdown = 3.0;
  for (int i = 0; i < 20; ++i) step();
  const double ideal = 300e-3 / (1.0 + 1.0 + 1.0 / 3.0);
  const double now = std::max(1e-3 * static_cast<double>(balancer.shares()[0]),
                              3e-3 * static_cast<double>(balancer.shares()[1]));
  EXPECT_LT(now, 1.05 * ideal);
  slowdown = 1.0;
  for (int i = 0; i < 20; ++i) step();
  EXPECT_NEAR(static_cast<double>(balancer.shares()[1]), 100.0, 6.0) << "and back";
}

/// Shares in panels, which take effect two steps late, as they do while batches are being filled. A
/// change that a program on the same core may make is followed in two goes.
TEST(Balancer, IsWithinATenthOfTheIdealAfterTwentySteps) {
  constexpr std::int64_t kBatch = 2048;
  for (const double change : {1.5, 3.0, 8.0}) {
    const std::vector<RankCost> ranks = {linear(2e-5, 1e-4), linear(4e-5, 1e-4),
                                         linear(8e-5, 1e-4)};
    Balancer balancer(kBatch, 32, ranks);
    std::deque<std::vector<std::int64_t>> queued(2, balancer.shares());
    std::mt19937_64 random(9);
    std::uniform_real_distribution<double> noise(1.0, 1.05);
    std::vector<double> slowdowns = {1.0, 1.0, 1.0};
    const auto step = [&](std::size_t rank, std::int64_t items) {
      return slowdowns[rank] * ranks[rank].at(items);
    };
    const auto run = [&](int steps) {
      for (int i = 0; i < steps; ++i) {
        std::vector<double> seconds;
        for (std::size_t r = 0; r < ranks.size(); ++r) {
          seconds.push_back(step(r, queued.front()[r]) * noise(random));
        }
        balancer.observe(queued.front(), seconds);
        queued.pop_front();
        queued.push_back(balancer.shares());
      }
    };
    run(30);
    slowdowns[0] = change;
    run(change < 2.0 ? 40 : 20);
    std::vector<RankCost> now = ranks;
    now[0].factor = change;
    const double ideal = slowest(now, share_by_cost(kBatch, 32, now));
    EXPECT_LE(slowest(now, queued.front()), 1.10 * ideal) << change << " times slower";
  }
}

/// Times of equal ranks that share a busy machine: each step may take up to four times as long as
/// alone. Shares wander, but the step that they make is never far from the best one.
TEST(Balancer, FollowsNoiseOnlySoFar) {
  const std::vector<RankCost> ranks = {linear(1e-3), linear(1e-3)};
  Balancer balancer(384, 32, ranks);
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> noise(1.0, 4.0);
  double sum = 0.0;
  constexpr int kSteps = 2000;
  for (int i = 0; i < kSteps; ++i) {
    const std::vector<std::int64_t> shares = balancer.shares();
    sum += slowest(ranks, shares);
    std::vector<double> seconds;
    for (std::size_t r = 0; r < 2; ++r) seconds.push_back(ranks[r].at(shares[r]) * noise(random));
    balancer.observe(shares, seconds);
    EXPECT_GT(std::min(balancer.shares()[0], balancer.shares()[1]), 0);
  }
  EXPECT_LT(sum / kSteps, 1.25 * 192e-3);
}

/// Ranks whose cores are shared with another program for some eight steps in turn, which makes them
/// 1.3 times slower meanwhile: shares that followed it would come too late. A device that becomes 3
/// times slower among them is followed all the same.
TEST(Balancer, FollowsADeviceButNotItsNeighbours) {
  constexpr std::int64_t kBatch = 2048;
  constexpr int kRuns = 40;
  const std::vector<RankCost> ranks(3, linear(26e-6, 5e-4));
  double before = 0.0;
  double after = 0.0;
  int changes = 0;
  for (int run = 0; run < kRuns; ++run) {
    std::mt19937_64 random(static_cast<std::uint64_t>(run));
    std::uniform_real_distribution<double> even(0.0, 1.0);
    std::vector<RankCost> now = ranks;
    std::vector<bool> shared(3, false);
    Balancer balancer(kBatch, 8, ranks);
    std::deque<std::vector<std::int64_t>> queued(2, balancer.shares());
    const auto mean_of = [&](int steps) {
      double sum = 0.0;
      for (int i = 0; i < steps; ++i) {
        std::vector<double> seconds;
        for (std::size_t r = 0; r < 3; ++r) {
          if (even(random) < 1.0 / 8.0) shared[r] = even(random) < 0.5;
          seconds.push_back(now[r].at(queued.front()[r]) * (shared[r] ? 1.3 : 1.0) *
                            (1.0 + 0.05 * even(random)));
        }
        changes += balancer.observe(queued.front(), seconds) ? 1 : 0;
        sum += slowest(now, queued.front()) / slowest(now, share_by_cost(kBatch, 8, now));
        queued.pop_front();
        queued.push_back(balancer.shares());
      }
      return sum / steps;
    };
    mean_of(30);
    before += mean_of(30) / kRuns;
    now[2].factor = 3.0;
    mean_of(20);
    after += mean_of(30) / kRuns;
  }
  EXPECT_LT(before, 1.05);
  EXPECT_LT(after, 1.10);
  EXPECT_LT(changes, 5 * kRuns) << "in 110 steps";
}

TEST(Balancer, SingleSlowStepsMoveNothing) {
  const std::vector<RankCost> ranks = {linear(1e-3), linear(1e-3)};
  Balancer balancer(100, 1, ranks);
  for (int i = 0; i < 60; ++i) {
    const double first = i % 4 == 0 ? 0.5 : 0.05;
    EXPECT_FALSE(balancer.observe(balancer.shares(), std::vector<double>{first, 0.05}));
  }
}

}  // namespace
}  // namespace spdnn
