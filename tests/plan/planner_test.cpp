// The planner on invented devices: no device is opened here.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "spdnn/plan.hpp"

namespace spdnn {
namespace {

ModelStats stats(std::int64_t layers, std::int64_t images, std::int64_t features = 1024) {
  ModelStats s;
  SpmmShape shape;
  shape.rows = shape.cols = features;
  shape.nnz = features * 32;
  s.layers.assign(static_cast<std::size_t>(layers), {shape, features * 64});
  s.images = images;
  s.max_features = features;
  s.input_bytes_per_image = 200.0;
  return s;
}

/// CPU ranks whose only kernel takes `seconds[rank]` for an image and layer.
Profile profile(std::int64_t layers, const std::vector<double>& seconds,
                std::int64_t memory = std::int64_t{1} << 32) {
  Profile p;
  p.shapes.resize(1);
  p.shape_of_layer.assign(static_cast<std::size_t>(layers), 0);
  for (const double s : seconds) {
    DeviceProfile rank;
    rank.device.name = "invented";
    rank.memory_limit = memory;
    rank.times = {{{"panel", "", s, 256}, {"reference", "", 10 * s, 256}, {"odd", "no", 0, 256}}};
    p.ranks.push_back(rank);
  }
  return p;
}

std::string message_of(const ModelStats& s, const Profile& p, const PlanRequest& request) {
  try {
    (void)make_plan(s, p, request);
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

TEST(SplitInProportion, CoversEverythingInOrderForAnyWeights) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 2000; ++round) {
    const auto count = static_cast<std::int64_t>(random() % 1000);
    const auto grain = static_cast<std::int64_t>(1 + random() % 40);
    std::vector<double> weights(1 + random() % 12);
    for (double& w : weights) w = static_cast<double>(random() % 5) * 0.37;
    weights[random() % weights.size()] += 0.1;
    const std::vector<Range> ranges = split_in_proportion(count, weights, grain);
    ASSERT_EQ(ranges.size(), weights.size());
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    std::int64_t end = 0;
    for (std::size_t i = 0; i < ranges.size(); ++i) {
      ASSERT_EQ(ranges[i].begin, end);
      ASSERT_GE(ranges[i].size(), 0);
      end = ranges[i].end;
      ASSERT_TRUE(end == count || ranges[i].size() % grain == 0);
      ASSERT_TRUE(weights[i] > 0.0 || ranges[i].size() == 0);
      const double ideal = static_cast<double>(count) * weights[i] / total;
      ASSERT_LE(std::abs(static_cast<double>(ranges[i].size()) - ideal),
                static_cast<double>(2 * grain));
    }
    ASSERT_EQ(end, count);
  }
}

TEST(SplitInProportion, RefusesWeightsThatAreNone) {
  EXPECT_THROW((void)split_in_proportion(5, {0.0, 0.0}), InputError);
  EXPECT_THROW((void)split_in_proportion(5, {1.0, -1.0}), InputError);
  EXPECT_THROW((void)split_in_proportion(5, {}), InputError);
}

TEST(MakePlan, SharesImagesByMeasuredSpeed) {
  const Plan plan = make_plan(stats(10, 600), profile(10, {1e-6, 2e-6}), {});
  EXPECT_EQ(plan.images[0], (Range{0, 400}));
  EXPECT_EQ(plan.images[1], (Range{400, 600}));
}

TEST(MakePlan, EvenSplitAndRatiosIgnoreSpeed) {
  PlanRequest request;
  request.split.kind = SplitKind::even;
  EXPECT_EQ(make_plan(stats(10, 600), profile(10, {1e-6, 2e-6}), request).images[0].size(), 300);
  request.split = {SplitKind::ratios, {70, 25, 5}};
  const Plan plan = make_plan(stats(10, 600), profile(10, {1e-6, 1e-6, 1e-6}), request);
  EXPECT_EQ(plan.images[0].size(), 420);
  EXPECT_EQ(plan.images[2].size(), 30);
  EXPECT_NE(message_of(stats(10, 600), profile(10, {1e-6}), request).find("3 ratios for 1 devices"),
            std::string::npos);
}

TEST(MakePlan, SegmentsCoverAllLayersOnceAndStayShort) {
  for (const std::int64_t layers : {1, 2, 5, 24, 120, 480, 1920}) {
    const Plan plan = make_plan(stats(layers, 100), profile(layers, {1e-6, 1e-6}), {});
    std::int64_t next = 0;
    for (const Segment& segment : plan.segments) {
      EXPECT_EQ(segment.first, next);
      EXPECT_GE(segment.count, 1);
      EXPECT_LE(segment.count, 12);
      ASSERT_EQ(segment.kernels.size(), 2U);
      EXPECT_EQ(std::ssize(segment.kernels[1]), segment.count);
      next += segment.count;
    }
    EXPECT_EQ(next, layers);
  }
}

TEST(MakePlan, TakesTheFastestKernelUnlessOneIsNamed) {
  PlanRequest request;
  EXPECT_EQ(make_plan(stats(3, 10), profile(3, {1e-6}), request).segments[0].kernels[0][0],
            "panel");
  request.kernel = "reference";
  EXPECT_EQ(make_plan(stats(3, 10), profile(3, {1e-6}), request).segments[0].kernels[0][0],
            "reference");
  request.kernel = "odd";
  EXPECT_NE(message_of(stats(3, 10), profile(3, {1e-6}), request).find("odd: no"),
            std::string::npos);
  request.kernel = "unknown";
  EXPECT_NE(message_of(stats(3, 10), profile(3, {1e-6}), request).find("panel, reference, odd"),
            std::string::npos);
}

/// Every kernel cuts the rows in an order of its own.
TEST(MakePlan, RanksThatShareRowsTakeOneKernel) {
  Profile uneven = profile(3, {1e-6, 1e-6});
  for (KernelTime& time : uneven.ranks[1].times[0]) {
    if (time.kernel == "reference") time.seconds_per_image = 0.9e-6;
  }
  PlanRequest request;
  request.strategy = Strategy::task_stealing;
  Plan plan = make_plan(stats(3, 10), uneven, request);
  EXPECT_EQ(plan.segments[0].kernels[0][0], "panel");
  EXPECT_EQ(plan.segments[0].kernels[1][0], "reference");
  for (const Strategy strategy : {Strategy::data_then_model, Strategy::model}) {
    request.strategy = strategy;
    plan = make_plan(stats(3, 10), uneven, request);
    for (const Segment& segment : plan.segments) {
      EXPECT_EQ(segment.kernels[0], segment.kernels[1]) << to_string(strategy);
    }
  }
  for (KernelTime& time : uneven.ranks[1].times[0]) {
    if (time.kernel == "panel") time.declined = "no fused multiply-add";
  }
  plan = make_plan(stats(3, 10), uneven, request);
  EXPECT_EQ(plan.segments[0].kernels[0][0], "reference");
  EXPECT_EQ(plan.segments[0].kernels[1][0], "reference");
}

/// A rank with a chain kernel that takes `seconds` for each layer of a run, but none of 12.
Profile with_chains(std::int64_t layers, double seconds) {
  Profile p = profile(layers, {1e-6});
  for (const Range& range : segment_layers(layers)) {
    if (range.size() < 2) continue;
    p.runs.emplace_back(static_cast<std::size_t>(range.size()), 0);
    KernelTime time{"chain", "", seconds * static_cast<double>(range.size()), 256};
    if (range.size() == 12) time = {"chain", "too long", 0.0, 256};
    p.ranks[0].chain_times.push_back({time});
  }
  return p;
}

std::vector<std::string> chains_of(const Profile& p, const PlanRequest& request,
                                   std::int64_t memory = std::int64_t{1} << 32) {
  Profile tight = p;
  tight.ranks[0].memory_limit = memory;
  const Plan plan = make_plan(stats(40, 100), tight, request);
  std::vector<std::string> chains;
  for (const Segment& segment : plan.segments) {
    chains.push_back(segment.count > 1 ? segment.chains[0] : "one layer" + segment.chains[0]);
  }
  return chains;
}

TEST(MakePlan, RunsLayersAsOneWhereThatIsFaster) {
  const std::vector<std::string> none = {"one layer", "one layer", "one layer", "one layer", "",
                                         "",          "",          "",          "",          ""};
  const std::vector<std::string> some = {"one layer", "one layer", "one layer", "one layer",
                                         "chain",     "chain",     "chain",     "chain",
                                         "chain",     ""};
  const Profile fast = with_chains(40, 0.5e-6);
  const Profile slow = with_chains(40, 1.5e-6);
  EXPECT_EQ(chains_of(fast, {}), some);
  EXPECT_EQ(chains_of(slow, {}), none);
  EXPECT_LT(modelled_seconds_per_image(fast, 0), modelled_seconds_per_image(slow, 0));
  PlanRequest request;
  request.kernel = "chain";
  EXPECT_EQ(chains_of(slow, request), some) << "asked for by name";
  request.kernel = "panel";
  EXPECT_EQ(chains_of(fast, request), none) << "another one was asked for";
  request.kernel = "auto";
  request.chains = false;
  EXPECT_EQ(chains_of(fast, request), none);
  EXPECT_EQ(chains_of(fast, {}, 4 << 20), none) << "weights are streamed layer by layer";
}

TEST(MakePlan, FitsBatchesIntoMemoryAndStreamsWhatDoesNotFit) {
  const std::int64_t megabyte = 1 << 20;
  const Plan roomy = make_plan(stats(120, 60000), profile(120, {1e-6}, 1 << 30), {});
  EXPECT_FALSE(roomy.stream_weights[0]);
  const Plan tight = make_plan(stats(120, 60000), profile(120, {1e-6}, 8 * megabyte), {});
  EXPECT_TRUE(tight.stream_weights[0]);
  EXPECT_LE(tight.batch[0] * 2 * 1024 * 4, 8 * megabyte);
  EXPECT_GT(tight.batch[0], 0);
  EXPECT_NE(message_of(stats(120, 60000), profile(120, {1e-6}, 100000), {}).find("memory_limit"),
            std::string::npos);
  PlanRequest request;
  request.batch = 100;
  EXPECT_EQ(make_plan(stats(120, 60000), profile(120, {1e-6}), request).batch[0], 100);
}

TEST(MakePlan, FitsBatchesIntoCaches) {
  const auto batch = [](std::int64_t features, std::size_t ranks) {
    Profile p = profile(120, std::vector<double>(ranks, 1e-6));
    for (DeviceProfile& rank : p.ranks) {
      rank.device.l2_bytes = 1 << 20;
      rank.device.l3_bytes = 32 << 20;
    }
    return make_plan(stats(120, 60000, features), p, {}).batch[0];
  };
  EXPECT_EQ(batch(1024, 2), 256);   // one buffer of activations is L2
  EXPECT_EQ(batch(16384, 2), 64);   // two panels of 2 MiB, read and written, in 16 MiB
  EXPECT_EQ(batch(65536, 2), 32);   // of 8 MiB: not in 16
  EXPECT_EQ(batch(65536, 1), 64);   // but in 32
  EXPECT_EQ(batch(262144, 1), 32);  // whatever the caches, a panel
}

TEST(MakePlan, RefusesWhatNoRankCanDo) {
  EXPECT_NE(message_of(stats(3, 10), {}, {}).find("no device"), std::string::npos);
  PlanRequest request;
  request.strategy = Strategy::grid;
  EXPECT_NE(message_of(stats(3, 10), profile(3, {1e-6}), request).find("groups of 2"),
            std::string::npos);
}

/// Every image is one group's, and every group's ranks have all rows.
TEST(MakePlan, GridsShareImagesAndRows) {
  const Profile p = profile(12, {4e-6, 1e-6, 1e-6, 2e-6, 1e-6});
  PlanRequest request;
  request.strategy = Strategy::grid;
  request.split = {SplitKind::ratios, {10.0, 0.0, 60.0, 20.0, 30.0}};
  const Plan ratios = make_plan(stats(12, 120), p, request);
  EXPECT_TRUE(ratios.own_rows);
  EXPECT_EQ(ratios.grid.places, (std::vector<std::int64_t>{3, -1, 0, 1, 2}));
  EXPECT_EQ(ratios.images[2].end, 80);
  EXPECT_EQ(ratios.images[4].begin, 80);
  EXPECT_EQ(ratios.images[4].end, 120);
  for (const std::size_t r : {0U, 1U, 3U}) EXPECT_EQ(ratios.images[r].size(), 0) << r;
  for (const std::int64_t batch : ratios.batch) EXPECT_EQ(batch, ratios.batch.front());
  EXPECT_GE(ratios.batch.front(), 80);
  EXPECT_EQ(ratios.segments.front().exchange, Exchange::halo);
  EXPECT_NE(ratios.notes.front().find("2 groups of 2 ranks"), std::string::npos);
  request.split = {};
  request.model_ranks = 5;
  const Plan profiled = make_plan(stats(12, 120), p, request);
  EXPECT_EQ(profiled.grid.rows.size(), 5U);
  EXPECT_NEAR(profiled.grid.rows[1] / profiled.grid.rows[0], 4.0, 1e-9);
}

TEST(MakePlan, IsPure) {
  const ModelStats s = stats(24, 777);
  const Profile p = profile(24, {1e-6, 3e-6, 2e-6});
  const Plan a = make_plan(s, p, {});
  const Plan b = make_plan(s, p, {});
  EXPECT_EQ(a.images, b.images);
  EXPECT_EQ(a.batch, b.batch);
}

TEST(ShareGrid, GroupsUnlikeRanksBySize) {
  const GridShares uneven = share_grid({10.0, 60.0, 20.0, 30.0}, 2);
  EXPECT_EQ(uneven.places, (std::vector<std::int64_t>{3, 0, 1, 2}));
  EXPECT_EQ(uneven.images, (std::vector<double>{80.0, 40.0}));
  EXPECT_EQ(uneven.rows, (std::vector<double>{90.0, 30.0}));
  const GridShares even = share_grid({1.0, 1.0, 0.0, 1.0, 1.0}, 2);
  EXPECT_EQ(even.places, (std::vector<std::int64_t>{0, 1, -1, 2, 3})) << "neighbours together";
  const GridShares images = share_grid({70.0, 25.0, 5.0}, 1);
  EXPECT_EQ(images.images, (std::vector<double>{70.0, 25.0, 5.0}));
  const GridShares rows = share_grid({5.0, 70.0, 25.0}, 3);
  EXPECT_EQ(rows.places, (std::vector<std::int64_t>{0, 1, 2}));
  EXPECT_EQ(rows.rows, (std::vector<double>{5.0, 70.0, 25.0}));
  EXPECT_THROW(static_cast<void>(share_grid({1.0, 1.0, 0.0, 1.0}, 2)), InputError);
  EXPECT_THROW(static_cast<void>(share_grid({0.0, 0.0}, 1)), InputError);
}

/// Groups that are alike but for their size give every rank its own share of the whole.
TEST(ShareGrid, GivesEachRankItsShare) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 1000; ++round) {
    const auto groups = 1 + random() % 5;
    const auto rows = 1 + random() % 5;
    std::vector<double> sizes, parts, shares;
    for (std::size_t g = 0; g < groups; ++g) {
      sizes.push_back(1.0 + 0.1 * static_cast<double>(random() % 10));
    }
    for (std::size_t n = 0; n < rows; ++n) parts.push_back(std::pow(2.0, n));
    for (const double size : sizes) {
      for (const double part : parts) shares.push_back(size * part);
    }
    std::shuffle(shares.begin(), shares.end(), random);
    const GridShares grid = share_grid(shares, static_cast<std::int64_t>(rows));
    const double all = std::accumulate(shares.begin(), shares.end(), 0.0);
    for (std::size_t r = 0; r < shares.size(); ++r) {
      const auto place = static_cast<std::size_t>(grid.places[r]);
      ASSERT_NEAR(grid.images[place / rows] * grid.rows[place % rows], shares[r] * all,
                  1e-9 * shares[r] * all);
    }
  }
}

}  // namespace
}  // namespace spdnn
