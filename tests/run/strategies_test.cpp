// Every strategy gives the bits of one rank, whoever happens to be fast: images are taken over at
// every occasion, and rows shared whether that pays or not.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "crew.hpp"
#include "image_queue.hpp"
#include "ranks.hpp"
#include "roster.hpp"
#include "support/networks.hpp"
#include "weights.hpp"

namespace spdnn {
namespace {

using test::Rows;

constexpr Strategy kStrategies[] = {Strategy::data, Strategy::model, Strategy::data_then_model,
                                    Strategy::task_manager, Strategy::task_stealing};

/// A network in which images die at different depths, and some of its images.
struct Job {
  Model model;
  Csr images;
};

Job make_job(std::int64_t layers, std::int64_t images, std::mt19937_64& random) {
  Job job;
  std::int64_t width = 24 + static_cast<std::int64_t>(random() % 40);
  job.images = test::random_csr({images, width, 6, Rows::irregular, true}, random);
  for (std::int64_t l = 0; l < layers; ++l) {
    const std::int64_t outputs = 24 + static_cast<std::int64_t>(random() % 40);
    SparseLinear layer;
    layer.weights = test::random_csr(
        {outputs, width, 7, random() % 2 == 0 ? Rows::equal : Rows::irregular, false}, random);
    layer.bias = {-0.02F * static_cast<float>(random() % 20)};
    layer.activation = {0.0F, 4.0F};
    job.model.layers.emplace_back(std::move(layer));
    width = outputs;
  }
  return job;
}

/// CPU ranks that a planner believes to be equally fast.
Profile profile_of(const Model& model, std::size_t ranks) {
  Profile profile;
  profile.shapes.resize(1);
  profile.shape_of_layer.assign(model.layers.size(), 0);
  DeviceProfile rank;
  rank.device.kind = DeviceKind::cpu;
  rank.memory_limit = std::int64_t{1} << 30;
  rank.times = {{{"panel", "", 1e-6, 256}}};
  profile.ranks.assign(ranks, rank);
  return profile;
}

struct Options {
  Strategy strategy = Strategy::data;
  std::vector<double> slowdowns = {1.0};  ///< one for each rank
  std::int64_t batch = 64;
  Split split;
  bool savings = false;  ///< merge images that become equal, and leave out fixed points
};

Outcome run_job(const Job& job, const Options& options, Progress& progress) {
  PlanRequest request;
  request.strategy = options.strategy;
  request.split = options.split;
  request.batch = options.batch;
  Plan plan = make_plan(stats_of(job.model, job.images),
                        profile_of(job.model, options.slowdowns.size()), request);
  plan.worth_help_s = 0.0;
  plan.worth_rows = 0.0;
  std::vector<DeviceSpec> specs(options.slowdowns.size());
  for (std::size_t r = 0; r < specs.size(); ++r) specs[r].slowdown = options.slowdowns[r];
  SharedForms forms(job.model);
  const std::vector<std::int64_t> none;
  PassContext context;
  context.model = &job.model;
  context.images = &job.images;
  context.plan = &plan;
  context.dead_from = dead_stays_dead_from(job.model);
  context.keep_first = job.images.rows();
  context.keep_ids = &none;
  context.merge_images = options.savings;
  context.alike_from = options.savings ? alike_from(job.model) : std::ssize(job.model.layers);
  context.progress = &progress;
  context.forms = &forms;
  const std::unique_ptr<World> world = single_world();
  return run_all_ranks(context, {*world, specs, {0, std::ssize(specs)}}, false);
}

Outcome run_job(const Job& job, const Options& options) {
  Progress progress;
  return run_job(job, options, progress);
}

std::int64_t total(const Outcome& outcome, std::int64_t PassResult::*count) {
  std::int64_t sum = 0;
  for (const PassResult& rank : outcome.ranks) sum += rank.*count;
  return sum;
}

void expect_equal(const Job& job, const Outcome& got, const Outcome& expected) {
  EXPECT_EQ(got.ids, expected.ids);
  EXPECT_TRUE(got.outputs == expected.outputs) << "outputs differ";
  EXPECT_EQ(total(got, &PassResult::begun), job.images.rows());
}

TEST(Strategies, RandomRunsWithRanksOfRandomSpeedEqualOneRank) {
  const char* rounds_given = std::getenv("SPDNN_STRATEGY_ROUNDS");
  const int rounds = rounds_given == nullptr ? 100 : std::atoi(rounds_given);
  std::int64_t taken_over = 0;
  std::int64_t helped = 0;
  for (int round = 0; round < rounds; ++round) {
    std::mt19937_64 random(static_cast<std::uint64_t>(round));
    const Job job = make_job(1 + static_cast<std::int64_t>(random() % 14),
                             static_cast<std::int64_t>(random() % 400), random);
    const Outcome expected = run_job(job, {});
    for (const Strategy strategy : kStrategies) {
      Options options;
      options.strategy = strategy;
      options.batch = 1 + static_cast<std::int64_t>(random() % 100);
      options.slowdowns.assign(1 + random() % 6, 1.0);
      for (double& s : options.slowdowns) {
        if (random() % 3 == 0) s = 1.0 + static_cast<double>(random() % 8);
      }
      SCOPED_TRACE(fmt::format("round {}, {} on {} ranks, batch {}", round, to_string(strategy),
                               options.slowdowns.size(), options.batch));
      const Outcome got = run_job(job, options);
      expect_equal(job, got, expected);
      if (HasFailure()) return;
      taken_over += total(got, &PassResult::taken_over);
      helped += total(got, &PassResult::helped_segments);
    }
  }
  EXPECT_GT(taken_over, 0);
  EXPECT_GT(helped, 0);
}

/// All survivors stand in the first rank's share.
Job lopsided_job(std::mt19937_64& random) {
  Job job = make_job(12, 0, random);
  for (Layer& layer : job.model.layers) std::get<SparseLinear>(layer).bias = {-0.01F};
  const Csr some = test::random_csr({256, job.model.inputs(), 6, Rows::equal, true}, random);
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> cols;
  for (std::int64_t image = 0; image < 1024; ++image) {
    for (std::int64_t k = 0; image < 256 && k < some.view().row_nnz; ++k) {
      cols.push_back(static_cast<std::uint32_t>(some.view().col(some.view().row_begin(image) + k)));
    }
    offsets.push_back(std::ssize(cols));
  }
  job.images = make_csr(1024, job.model.inputs(), std::move(offsets), std::move(cols), {1.0F});
  return job;
}

TEST(Strategies, DataThenModelSharesWhatOneRankHasTooMuchOf) {
  std::mt19937_64 random(3);
  const Job job = lopsided_job(random);
  Options options;
  options.slowdowns = {1.0, 1.0};
  const Outcome expected = run_job(job, options);
  EXPECT_EQ(total(expected, &PassResult::taken_over), 0);
  options.strategy = Strategy::data_then_model;
  options.slowdowns = {40.0, 1.0};
  const Outcome got = run_job(job, options);
  expect_equal(job, got, expected);
  EXPECT_GT(got.ranks[1].taken_over, 0);
}

TEST(Strategies, ModelSharesEveryLayerOfEveryImage) {
  std::mt19937_64 random(4);
  const Job job = make_job(9, 300, random);
  Options options;
  options.strategy = Strategy::model;
  options.slowdowns.assign(3, 1.0);
  const Outcome got = run_job(job, options);
  expect_equal(job, got, run_job(job, {}));
  EXPECT_EQ(got.ranks[0].begun, 300);
  EXPECT_GT(got.ranks[1].helped_segments, 0);
  EXPECT_EQ(got.ranks[1].helped_segments, got.ranks[2].helped_segments);
}

/// Images that are few in kind but many, which a run must find out by itself, between layers.
TEST(Strategies, MergedAndFixedImagesKeepTheirOutputs) {
  std::int64_t equal = 0;
  std::int64_t fixed = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    std::mt19937_64 random(seed);
    Job job = make_job(4, 200, random);
    if (seed % 2 == 0) {  // saturating layers, all alike: images come to rest, many at one point
      const std::int64_t width = job.model.inputs();
      SparseLinear layer;
      layer.weights = test::random_csr({width, width, 24, Rows::irregular, false}, random);
      layer.bias = {seed % 4 == 0 ? -0.1F : 0.05F};
      layer.activation = {0.0F, 1.0F};
      job.model.layers.assign(30, layer);
    } else {  // a first layer that tells few images apart
      auto& layer = std::get<SparseLinear>(job.model.layers[0]);
      layer.weights =
          test::random_csr({layer.outputs(), layer.inputs(), 1, Rows::equal, true}, random);
      layer.bias = {-0.1F};
      for (int l = 0; l < 20; ++l) {
        SparseLinear deeper;
        const std::int64_t inputs = job.model.outputs();
        deeper.weights = test::random_csr({40, inputs, 24, Rows::equal, false}, random);
        deeper.bias = {0.1F};
        deeper.activation = {0.0F, 4.0F};
        job.model.layers.emplace_back(std::move(deeper));
      }
    }
    const Outcome expected = run_job(job, {});
    for (const Strategy strategy : kStrategies) {
      Options options;
      options.strategy = strategy;
      options.slowdowns.assign(1 + seed % 3, 1.0);
      options.savings = true;
      SCOPED_TRACE(fmt::format("seed {}, {}", seed, to_string(strategy)));
      const Outcome got = run_job(job, options);
      expect_equal(job, got, expected);
      if (HasFailure()) return;
      equal += total(got, &PassResult::equal);
      fixed += total(got, &PassResult::fixed);
    }
  }
  EXPECT_GT(equal, 0);
  EXPECT_GT(fixed, 0);
}

TEST(Strategies, AFailureOrCancelReachesRanksThatWait) {
  std::mt19937_64 random(5);
  const Job job = make_job(9, 300, random);
  for (const Strategy strategy : kStrategies) {
    Options options;
    options.strategy = strategy;
    options.slowdowns.assign(4, 1.0);
    Progress progress;
    progress.cancel = true;
    EXPECT_THROW((void)run_job(job, options, progress), CommError) << to_string(strategy);
  }
}

TEST(ImageQueue, HandsOutEveryImageOnceWhoeverTakes) {
  for (const Sharing sharing : {Sharing::own, Sharing::common, Sharing::stealing}) {
    constexpr std::int64_t kImages = 100000;
    ImageQueue queue({{0, 70000}, {70000, 70000}, {70000, 99000}, {99000, kImages}}, sharing, 32);
    std::vector<std::vector<Range>> taken(4);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 4; ++rank) {
      threads.emplace_back([&, rank] {
        for (Range r = queue.take(rank, 7 + rank); r.size() > 0; r = queue.take(rank, 7 + rank)) {
          taken[rank].push_back(r);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::vector<int> times(kImages);
    for (const auto& ranges : taken) {
      for (const Range& r : ranges) {
        for (std::int64_t i = r.begin; i < r.end; ++i) ++times[i];
      }
    }
    EXPECT_EQ(std::count(times.begin(), times.end(), 1), kImages);
    if (sharing == Sharing::own) {
      EXPECT_TRUE(taken[1].empty());
    }
  }
}

TEST(ImageQueue, AThiefTakesTheBackHalfOfTheLargestRest) {
  ImageQueue queue({{0, 1000}, {1000, 1000}, {1000, 1200}}, Sharing::stealing, 32);
  EXPECT_EQ(queue.take(0, 100), (Range{0, 100}));
  EXPECT_EQ(queue.take(1, 64), (Range{520, 584}));  // 900 are left: 480 of them, in grains of 32
  EXPECT_EQ(queue.take(1, 1000), (Range{584, 1000}));
  EXPECT_EQ(queue.take(0, 1000), (Range{100, 520}));
  EXPECT_EQ(queue.take(0, 1000), (Range{1072, 1200}));
}

TEST(ImageQueue, KnowsHowManyAreLeftForEachThatIsBegun) {
  for (const Sharing sharing : {Sharing::own, Sharing::stealing, Sharing::common}) {
    ImageQueue queue({{0, 1000}, {1000, 1200}}, sharing, 32);
    static_cast<void>(queue.take(0, 300));
    EXPECT_DOUBLE_EQ(queue.rest(), 3.0);
    static_cast<void>(queue.take(0, 700));
    static_cast<void>(queue.take(1, 200));
    EXPECT_EQ(queue.rest(), 0.0);
  }
}

TEST(Crew, SharesRowsByTheSpeedsItsMembersHave) {
  SharedCrew crew({1.0, 1.0, 2.0}, false);
  EXPECT_EQ(crew.rows(2).end - crew.rows(2).begin, crew.rows(2).of / 2);
  std::uint8_t alive[3][4] = {{0, 0, 1, 0}, {0, 0, 0, 1}, {0, 1, 0, 0}};
  crew.tell(0, alive[0], 3.0);
  crew.tell(1, alive[1], 1.0);
  crew.tell(2, alive[2], 2.0);
  crew.rebalance();  // speeds are now 1/3, 1 and 1
  EXPECT_NEAR(crew.rows(0).end, crew.rows(0).of / 7.0, 1.0);
  EXPECT_EQ(crew.rows(1).begin, crew.rows(0).end);
  EXPECT_EQ(crew.rows(2).end, crew.rows(2).of);
}

}  // namespace
}  // namespace spdnn
