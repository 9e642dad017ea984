// Layouts of training steps against exhaustive search, on invented devices.
#include "spdnn/train_plan.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <random>

#include "spdnn/error.hpp"

namespace spdnn {
namespace {

constexpr double kForever = std::numeric_limits<double>::infinity();

/// A device `factor` times slower than one that takes 1 µs a unit and image, and a little more for
/// small shares.
TrainDevice device_of(const TrainProblem& problem, double factor, double overhead = 0.0) {
  TrainDevice device;
  device.images.factor = factor;
  double each = 0.0;
  for (const std::int64_t units : problem.units) {
    const auto all = 1e-6 * static_cast<double>(units);
    CostCurve& curve = device.rows.emplace_back();
    if (units > 0) {
      curve = CostCurve({{1, 1e-6 + overhead * all}, {units, (1.0 + overhead) * all}});
    }
    each += (1.0 + overhead) * all;
  }
  device.images.curve = CostCurve({{problem.batch, each * static_cast<double>(problem.batch)}});
  return device;
}

TrainProblem small_problem(std::int64_t batch, std::vector<std::int64_t> units) {
  TrainProblem problem;
  problem.batch = batch;
  problem.units = std::move(units);
  problem.halo_bytes.assign(problem.units.size() + 1, 0.0);
  return problem;
}

/// Calls `use` with every way to share `count` among `parts`.
void for_each_split(std::int64_t count, std::size_t parts,
                    const std::function<void(const std::vector<std::int64_t>&)>& use) {
  std::vector<std::int64_t> split(parts);
  const std::function<void(std::size_t, std::int64_t)> place = [&](std::size_t p,
                                                                   std::int64_t left) {
    if (p + 1 == parts) {
      split[p] = left;
      use(split);
      return;
    }
    for (split[p] = 0; split[p] <= left; ++split[p]) place(p + 1, left - split[p]);
  };
  place(0, count);
}

/// Least work of ranks that share the rows, by trying all shares of each layer; memory holds as
/// many rows of a batch as it does images of all rows.
double exhaustive_rows(const TrainProblem& problem, const std::vector<TrainDevice>& team) {
  double seconds = 0.0;
  for (std::size_t l = 0; l < problem.units.size(); ++l) {
    double best = kForever;
    for_each_split(problem.units[l], team.size(), [&](const std::vector<std::int64_t>& split) {
      double last = 0.0;
      for (std::size_t d = 0; d < team.size(); ++d) {
        if (split[d] >
            problem.units[l] * std::min(team[d].images.most, problem.batch) / problem.batch) {
          return;
        }
        last = std::max(last, team[d].images.factor * team[d].rows[l].at(split[d]));
      }
      best = std::min(best, last);
    });
    seconds += best * static_cast<double>(problem.batch);
  }
  return waiting_factor(team) * seconds;
}

TEST(LayOut, SharesRowsAsRanksAreFast) {
  const TrainProblem problem = small_problem(10, {60, 0, 480});
  const std::vector<TrainDevice> devices = {device_of(problem, 16.0), device_of(problem, 2.0),
                                            device_of(problem, 8.0), device_of(problem, 4.0)};
  const TrainLayout layout = lay_out(problem, devices, Strategy::model);
  EXPECT_EQ(layout.strategy, Strategy::model);
  EXPECT_EQ(layout.rows, 4);
  EXPECT_EQ(layout.places, (std::vector<std::int64_t>{3, 0, 2, 1}));
  EXPECT_EQ(layout.units[0], (std::vector<std::int64_t>{32, 16, 8, 4}));
  EXPECT_EQ(layout.units[1], layout.units[0]) << "a pooling follows";
  EXPECT_EQ(layout.units[2], (std::vector<std::int64_t>{256, 128, 64, 32}));
  EXPECT_EQ(layout.images, std::vector<std::int64_t>{10});
  EXPECT_NEAR(layout.work_s, 10.0 * (32.0 + 256.0) * 2e-6, 1e-12);
}

/// Of a die with two sides, and of one with sides of its own.
TEST(WaitingFactor, IsTheMeanOfTheLongest) {
  TrainDevice steady, coin, die;
  coin.spread = {0.5, 1.5};
  for (int side = 1; side <= 6; ++side) die.spread.push_back(side / 3.5);
  const auto factor = [](std::vector<TrainDevice> devices) { return waiting_factor(devices); };
  EXPECT_DOUBLE_EQ(factor({steady, steady}), 1.0);
  EXPECT_DOUBLE_EQ(factor({coin}), 1.0);
  EXPECT_DOUBLE_EQ(factor({coin, coin}), 1.25);
  EXPECT_DOUBLE_EQ(factor({coin, steady}), 1.25);
  EXPECT_NEAR(factor(std::vector<TrainDevice>(4, coin)), 1.5 - 1.0 / 16.0, 1e-12);
  EXPECT_NEAR(factor(std::vector<TrainDevice>(2, die)), 161.0 / 36.0 / 3.5, 1e-12);
  double last = 1.0;
  for (std::size_t devices = 2; devices <= 64; ++devices) {
    const double next = factor(std::vector<TrainDevice>(devices, die));
    EXPECT_GE(next, last);
    last = next;
  }
  EXPECT_NEAR(last, 6.0 / 3.5, 1e-4);
}

/// What devices wait for one another counts for rows, and not for images.
TEST(LayOut, TakesImagesWhereTimesOfLayersDiffer) {
  TrainProblem problem = small_problem(64, {64, 64});
  std::vector<TrainDevice> devices(4, device_of(problem, 1.0));
  problem.sums = {0.0, 1e-9};
  problem.parameter_bytes = 0.2 * 64.0 * 128e-6 / 4.0 / 1.5e-9;  // a fifth of a rank's work
  EXPECT_EQ(lay_out(problem, devices, Strategy::automatic).strategy, Strategy::model);
  for (TrainDevice& device : devices) device.spread = {0.5, 1.5};
  const TrainLayout rows = lay_out(problem, devices, Strategy::model);
  EXPECT_NEAR(rows.work_s, (1.5 - 1.0 / 16.0) * 64.0 * 128e-6 / 4.0, 1e-9);
  EXPECT_EQ(lay_out(problem, devices, Strategy::automatic).strategy, Strategy::data);
}

TEST(LayOut, TakesImagesWhereExchangesAreDearAndRowsWhereParametersAre) {
  TrainProblem problem = small_problem(64, {64, 64});
  const std::vector<TrainDevice> devices(4, device_of(problem, 1.0));
  problem.sums = problem.halos = {1e-6, 1e-9};
  problem.parameter_bytes = 4096.0;
  problem.halo_bytes = {0.0, 1e6, 1e6};
  EXPECT_EQ(lay_out(problem, devices, Strategy::automatic).strategy, Strategy::data);
  problem.parameter_bytes = 1e9;
  problem.halo_bytes = {0.0, 256.0, 256.0};
  EXPECT_EQ(lay_out(problem, devices, Strategy::automatic).strategy, Strategy::model);
  // A batch of two panels occupies two ranks alone, or two groups.
  problem.parameter_bytes = 1e5;
  problem.halo_bytes = {0.0, 1e4, 1e4};
  problem.grain = 32;
  const TrainLayout grid = lay_out(problem, devices, Strategy::automatic);
  EXPECT_EQ(grid.strategy, Strategy::grid);
  EXPECT_EQ(grid.images, (std::vector<std::int64_t>{32, 32}));
}

TEST(LayOut, LeavesOutADeviceThatCostsMoreThanItGives) {
  TrainProblem problem = small_problem(8, {64});
  problem.halos = {20e-6, 0.0};
  problem.halo_bytes = {0.0, 1.0};
  const std::vector<TrainDevice> devices = {device_of(problem, 1.0), device_of(problem, 1.0),
                                            device_of(problem, 60.0)};
  const TrainLayout layout = lay_out(problem, devices, Strategy::model);
  EXPECT_EQ(layout.places, (std::vector<std::int64_t>{0, 1, -1}));
}

TEST(LayOut, RefusesGroupsThatDoNotFitAndBatchesWithoutRoom) {
  const TrainProblem problem = small_problem(64, {64});
  std::vector<TrainDevice> devices(3, device_of(problem, 1.0));
  EXPECT_THROW(static_cast<void>(lay_out(problem, devices, Strategy::grid, 2)), InputError);
  for (TrainDevice& device : devices) device.images.most = 10;
  EXPECT_THROW(static_cast<void>(lay_out(problem, devices, Strategy::model)), InputError);
  EXPECT_THROW(static_cast<void>(lay_out(problem, devices, Strategy::automatic)), InputError);
}

/// Three layers of which some put out less than they read.
TrainProblem narrowing_problem(std::mt19937_64& random) {
  std::uniform_real_distribution<double> part(0.0, 1.0);
  TrainProblem problem = small_problem(16, {});
  problem.halo_bytes = problem.sum_bytes = {0.0};
  for (int l = 0; l < 3; ++l) {
    problem.units.push_back(4 + static_cast<std::int64_t>(random() % 60));
    const double bytes = 4.0 * static_cast<double>(problem.units.back());
    problem.halo_bytes.push_back(bytes);
    if (l > 0) problem.sum_bytes.push_back(bytes);
  }
  problem.halos = {1e-6 * part(random), 1e-7 * std::pow(10.0, -2.0 * part(random))};
  return problem;
}

/// The splits that are found against all that there are.
TEST(LayOut, SplitsByInputsWhereThatIsSoonestDone) {
  std::mt19937_64 random(5);
  std::uniform_real_distribution<double> exponent(0.0, 1.0);
  int by_inputs = 0;
  for (int round = 0; round < 300; ++round) {
    TrainProblem problem = narrowing_problem(random);
    std::vector<TrainDevice> devices;
    for (int d = 0; d < 3; ++d) {
      devices.push_back(device_of(problem, std::pow(10.0, exponent(random))));
    }
    const TrainLayout found = lay_out(problem, devices, Strategy::model);
    ASSERT_EQ(std::ssize(found.splits), 3);
    EXPECT_EQ(found.splits[0], LayerSplit::outputs);
    by_inputs += std::count(found.splits.begin(), found.splits.end(), LayerSplit::inputs) > 0;
    double best = kForever;
    for (unsigned set = 0; set < 4; ++set) {
      problem.splits.assign(3, LayerSplit::outputs);
      for (unsigned l = 0; l < 2; ++l) {
        if ((set >> l & 1U) != 0) problem.splits[l + 1] = LayerSplit::inputs;
      }
      const TrainLayout given = lay_out(problem, devices, Strategy::model);
      EXPECT_EQ(given.splits, problem.splits);
      best = std::min(best, given.seconds());
    }
    ASSERT_LE(found.seconds(), 1.05 * best) << "round " << round;
  }
  EXPECT_GT(by_inputs, 50);
  EXPECT_LT(by_inputs, 300);
}

TEST(LayOut, FewerBytesDecideWhereNothingIsMeasured) {
  TrainProblem problem = small_problem(8, {64, 0, 16, 16, 4});
  problem.halo_bytes = {0.0, 0.0, 256.0, 64.0, 64.0, 16.0};
  EXPECT_EQ(splits_by_bytes(problem), std::vector<LayerSplit>(5, LayerSplit::outputs));
  problem.sum_bytes = {0.0, 0.0, 128.0, 64.0, 16.0};
  constexpr LayerSplit kOut = LayerSplit::outputs;
  constexpr LayerSplit kIn = LayerSplit::inputs;
  EXPECT_EQ(splits_by_bytes(problem), (std::vector<LayerSplit>{kOut, kOut, kIn, kOut, kIn}));
}

/// Pairs of four devices, by every assignment, and every share of rows and of images.
TEST(LayOut, GridsAreNearTheBestOfAll) {
  std::mt19937_64 random(77);
  std::uniform_real_distribution<double> exponent(0.0, 1.5);
  for (int round = 0; round < 150; ++round) {
    const TrainProblem problem = small_problem(16, {16});
    std::vector<TrainDevice> devices;
    for (int d = 0; d < 4; ++d) {
      devices.push_back(device_of(problem, std::pow(10.0, exponent(random))));
    }
    const TrainLayout layout = lay_out(problem, devices, Strategy::grid, 2);
    std::vector<std::size_t> order = {0, 1, 2, 3};
    double best = kForever;
    do {
      for_each_split(16, 2, [&](const std::vector<std::int64_t>& units) {
        for_each_split(16, 2, [&](const std::vector<std::int64_t>& images) {
          double last = 0.0;
          for (std::size_t i = 0; i < 4; ++i) {
            const TrainDevice& device = devices[order[i]];
            last = std::max(last, static_cast<double>(images[i / 2]) * device.images.factor *
                                      device.rows[0].at(units[i % 2]));
          }
          best = std::min(best, last);
        });
      });
    } while (std::next_permutation(order.begin(), order.end()));
    ASSERT_LE(layout.work_s, 1.05 * best) << "round " << round;
  }
}

/// Under model and grid, a device that becomes slower loses rows, those of its number in all
/// groups.
TEST(RowBalancer, FollowsADeviceThatBecomesSlower) {
  const TrainProblem problem = small_problem(64, {120, 0, 480});
  for (const std::size_t groups : {1U, 2U}) {
    std::vector<TrainDevice> devices(3 * groups, device_of(problem, 1.0));
    TrainLayout layout;
    layout.rows = 3;
    layout.images.assign(groups, problem.batch / static_cast<std::int64_t>(groups));
    layout.units = share_rows(problem, devices, layout.images);
    RowBalancer balancer(problem, devices, layout);
    std::mt19937_64 random(5);
    std::uniform_real_distribution<double> noise(1.0, 1.03);
    const auto step = [&] {
      std::vector<double> seconds;
      for (std::size_t d = 0; d < devices.size(); ++d) {
        double work = 0.0;
        for (std::size_t l = 0; l < problem.units.size(); ++l) {
          work += devices[d].images.factor * devices[d].rows[l].at(balancer.units()[l][d % 3]);
        }
        seconds.push_back(work * static_cast<double>(layout.images[d / 3]) * noise(random));
      }
      return balancer.observe(layout.images, seconds);
    };
    for (int i = 0; i < 100; ++i) EXPECT_FALSE(step()) << "noise alone moves nothing";
    devices[1].images.factor = 3.0;
    for (int i = 0; i < 20; ++i) step();
    const auto best = share_rows(problem, devices, layout.images);
    EXPECT_LE(rows_seconds(problem, devices, balancer.units(), layout.images),
              1.10 * rows_seconds(problem, devices, best, layout.images));
    EXPECT_NEAR(balancer.predicted(),
                rows_seconds(problem, devices, balancer.units(), layout.images),
                0.1 * balancer.predicted());
    EXPECT_EQ(balancer.units()[1], balancer.units()[0]);
  }
}

/// 10,000 sets of 1–64 devices over three orders of magnitude, some short of memory: everything is
/// somebody's; rows are shared as well as exhaustive search does; a faster device never makes the
/// plan worse.
TEST(LayOut, HoldsForRandomDevices) {
  constexpr std::uint64_t kSeed = 20212;
  std::mt19937_64 random(kSeed);
  std::uniform_real_distribution<double> part(0.0, 1.0);
  for (int round = 0; round < 10'000; ++round) {
    // Few of many devices: a plan tries as many teams as there are devices.
    const std::size_t count = round % 20 == 0 ? 1 + random() % 64 : 1 + random() % 8;
    TrainProblem problem = small_problem(1 + static_cast<std::int64_t>(random() % 64), {});
    problem.units = {1 + static_cast<std::int64_t>(random() % 64), 0,
                     1 + static_cast<std::int64_t>(random() % 64)};
    problem.halo_bytes = {0.0, 0.0, 1e3 * part(random), 1e2 * part(random)};
    problem.parameter_bytes = 1e6 * part(random);
    problem.sums = problem.halos = {std::pow(10.0, -7.0 + 3.0 * part(random)), 1e-10};
    std::vector<TrainDevice> devices;
    for (std::size_t d = 0; d < count; ++d) {
      devices.push_back(device_of(problem, std::pow(10.0, 3.0 * part(random)), 0.1 * part(random)));
      if (d > 0 && part(random) < 0.3) {
        devices.back().images.most = static_cast<std::int64_t>(random() % 64);
      }
    }
    const TrainLayout layout = lay_out(problem, devices, Strategy::automatic);
    ASSERT_EQ(std::accumulate(layout.images.begin(), layout.images.end(), std::int64_t{0}),
              problem.batch);
    for (std::size_t l = 0; l < problem.units.size(); ++l) {
      ASSERT_EQ(std::ssize(layout.units[l]), layout.rows);
      ASSERT_EQ(std::accumulate(layout.units[l].begin(), layout.units[l].end(), std::int64_t{0}),
                problem.units[l == 1 ? 0 : l]);
    }
    if (count <= 3 || (count == 4 && problem.units[0] + problem.units[2] <= 40)) {
      double best = kForever;
      for (std::size_t set = 1; set < std::size_t{1} << count; ++set) {
        std::vector<TrainDevice> team;
        for (std::size_t d = 0; d < count; ++d) {
          if ((set >> d & 1U) != 0) team.push_back(devices[d]);
        }
        const auto k = std::ssize(team);
        double halos = 0.0;
        for (const double bytes : problem.halo_bytes) {
          if (bytes <= 0.0) continue;
          halos += 2.0 * problem.halos.all_gather(k, bytes * static_cast<double>(problem.batch));
        }
        best = std::min(best, exhaustive_rows(problem, team) + halos);
      }
      ASSERT_LE(layout.seconds(), 1.05 * best) << "round " << round << ", seed " << kSeed;
    }
    devices[random() % count].images.factor = 0.5 * part(random);
    ASSERT_LE(lay_out(problem, devices, Strategy::automatic).seconds(), 1.01 * layout.seconds())
        << "round " << round << ", seed " << kSeed;
  }
}

}  // namespace
}  // namespace spdnn
