// The hypergraph partitioner: its tables against recounting, tiny networks against every partition
// there is, and the figures a published network must come to.
#include <gtest/gtest.h>

#include <numeric>
#include <optional>

#include "hypergraph/assignment.hpp"
#include "hypergraph/engine.hpp"
#include "plan/random_model.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

using hypergraph::Assignment;
using hypergraph::Hypergraph;
using hypergraph::Limits;

HypergraphRequest request_for(int parts) {
  HypergraphRequest request;
  request.speeds.assign(static_cast<std::size_t>(parts), 1.0);
  request.searches = 2;
  return request;
}

std::vector<std::uint32_t> random_parts(const Hypergraph& graph, int parts,
                                        std::mt19937_64& random) {
  std::vector<std::uint32_t> result(static_cast<std::size_t>(graph.vertices()));
  for (auto& part : result) part = static_cast<std::uint32_t>(random() % parts);
  std::iota(result.begin(), result.begin() + graph.fixed, 0U);
  return result;
}

Limits limits_for(const Model& model, int parts) {
  return hypergraph::limits_of(model, request_for(parts));
}

TEST(Hypergraph, CostIsTheTrafficAndChangesAreDifferences) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    std::mt19937_64 random(seed);
    // Few parts have a slot on every net, more are looked up, still more share bits.
    const int parts = 2 + static_cast<int>(seed % 11) + (seed % 3 == 0 ? 1500 : 0);
    const Model model = test::random_layers({9, 20, 14, 25}, 1 + seed % 7, seed);
    const auto weights = partitioned_weights(model);
    const Hypergraph graph = hypergraph::hypergraph_of(weights, {0, 3}, {}, parts);
    const Limits limits = limits_for(model, parts);
    Assignment assignment(graph, limits, random_parts(graph, parts, random));
    for (int step = 0; step < 200; ++step) {
      const auto u = static_cast<std::uint32_t>(random() % graph.vertices());
      const auto v = static_cast<std::uint32_t>(random() % graph.vertices());
      const auto to = static_cast<std::uint32_t>(random() % parts);
      const std::int64_t cost = assignment.cost();
      const double overload = assignment.overload();
      std::int64_t words = 0;
      double above = 0.0;
      if (step % 2 == 0 && assignment.parts()[u] != to) {
        words = assignment.words_of_move(u, to);
        above = assignment.overload_of_move(u, to);
        EXPECT_EQ(assignment.words_of_move(u, to, words), words);
        std::vector<std::int64_t> touching(static_cast<std::size_t>(parts));
        std::vector<std::uint32_t> touched;
        EXPECT_EQ(assignment.find_touched(u, touching, touched) - touching[to], words);
        EXPECT_GT(assignment.words_of_move(u, to, words - 1), words - 1);
        assignment.move(u, to);
      } else if (assignment.parts()[u] != assignment.parts()[v]) {
        words = assignment.words_of_swap(u, v);
        above = assignment.overload_of_swap(u, v);
        EXPECT_EQ(assignment.words_of_swap(u, v, words), words);
        EXPECT_GT(assignment.words_of_swap(u, v, words - 1), words - 1);
        assignment.swap(u, v);
      }
      ASSERT_EQ(assignment.cost(), cost + words);
      ASSERT_NEAR(assignment.overload(), overload + above, 1e-9);
    }
    const Partition partition = hypergraph::partition_of(model, parts, assignment.parts());
    EXPECT_EQ(assignment.cost(), count_traffic(model, partition).words);
    EXPECT_EQ(Assignment(graph, limits, assignment.parts()).cost(), assignment.cost());
    for (std::uint32_t v = 0; v < graph.vertices(); ++v) {
      const auto peers = assignment.peers(v, assignment.parts()[v]);
      EXPECT_NE(std::find(peers.begin(), peers.end(), v), peers.end());
    }
  }
}

TEST(Hypergraph, ContractionKeepsCostAndLoads) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    std::mt19937_64 random(seed);
    const Model model = test::random_layers({9, 20, 30, 25}, 6, seed, test::Rows::grouped);
    const auto weights = partitioned_weights(model);
    const std::vector<std::uint32_t> before = {0, 1, 2, 0, 1, 2, 0, 1, 2};
    const Range range{seed % 2 == 0 ? 1 : 0, 3};
    const bool fixed = seed % 4 == 1;
    const Hypergraph graph =
        hypergraph::hypergraph_of(weights, range, fixed ? before : std::vector<std::uint32_t>{}, 3);
    const std::vector<std::int64_t> caps(3, 20);
    const auto clustering = seed % 3 == 0 ? hypergraph::cluster_twins(graph, weights, range, caps)
                                          : hypergraph::cluster_neighbours(graph, caps, {}, seed);
    const Hypergraph small = hypergraph::contract(graph, clustering.cluster, clustering.count);
    EXPECT_LT(small.vertices(), graph.vertices());
    const std::vector<std::uint32_t> parts = random_parts(small, 3, random);
    std::vector<std::uint32_t> fine(static_cast<std::size_t>(graph.vertices()));
    for (std::size_t v = 0; v < fine.size(); ++v) fine[v] = parts[clustering.cluster[v]];
    Limits none(range.size(), 3);
    const Assignment coarse(small, none, parts);
    EXPECT_EQ(coarse.cost(), Assignment(graph, none, fine).cost());
    std::vector<std::int64_t> sums(3), members(static_cast<std::size_t>(small.vertices()));
    for (const auto& weight : small.weights) sums[weight.layer] += weight.nonzeros;
    for (std::int64_t l = range.begin; l < range.end; ++l) {
      EXPECT_EQ(sums[l - range.begin], weights[l].nnz);
    }
  }
}

TEST(Hypergraph, VerticesThatFillAShareMeetThoseOfOtherLayers) {
  // Rows of the same layer share most, but none may meet another.
  const Model model = test::random_layers({64, 64, 64, 64, 64}, 8, 3, test::Rows::grouped);
  const auto weights = partitioned_weights(model);
  const Hypergraph graph = hypergraph::hypergraph_of(weights, {0, 4}, {}, 64);
  std::vector<std::int64_t> caps(4);
  for (const auto& own : graph.weights) {
    caps[own.layer] = std::max(caps[own.layer], own.nonzeros);
  }
  const auto clustering = hypergraph::cluster_neighbours(graph, caps, {}, 1);
  const Hypergraph small = hypergraph::contract(graph, clustering.cluster, clustering.count);
  EXPECT_LT(small.vertices(), graph.vertices() * 7 / 10);
  for (const auto& own : small.weights) EXPECT_LE(own.nonzeros, caps[own.layer]);
}

TEST(Hypergraph, WhatPartsTookApartStaysSo) {
  const std::vector<std::uint32_t> cluster = {0, 1, 2, 2, 3, 2, 3, 2};
  const std::vector<std::uint32_t> parts = {0, 1, 0, 1, 1, 0, 1, 1};
  const auto pieces = hypergraph::cluster_within(cluster, parts, 2);
  EXPECT_EQ(pieces.cluster, (std::vector<std::uint32_t>{0, 1, 2, 3, 4, 2, 4, 3}));
  EXPECT_EQ(pieces.count, 5);
}

TEST(Hypergraph, TinyNetworksComeToTheBestThereIs) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    const Model model = test::random_layers({4, 6, 6}, 2, seed, test::Rows::equal);
    HypergraphRequest request = request_for(2);
    request.imbalance = 0.0;
    request.searches = 4;
    const Limits limits = hypergraph::limits_of(model, request);
    const auto weights = partitioned_weights(model);
    const Hypergraph graph = hypergraph::hypergraph_of(weights, {0, 2}, {}, 2);
    std::optional<std::int64_t> least;
    for (std::uint32_t bits = 0; bits < 1U << 12; ++bits) {
      std::vector<std::uint32_t> parts(12);
      for (std::size_t v = 0; v < 12; ++v) parts[v] = bits >> v & 1U;
      const Assignment assignment(graph, limits, parts);
      if (assignment.overload() == 0.0 && (!least || assignment.cost() < *least)) {
        least = assignment.cost();
      }
    }
    ASSERT_TRUE(least);
    EXPECT_EQ(count_traffic(model, hypergraph_partition(model, request)).words, *least)
        << "seed " << seed;
  }
}

TEST(Hypergraph, PartitionsAreWithinLimitsRepeatableAndNoWorseThanCyclic) {
  for (const auto pattern : {test::Rows::irregular, test::Rows::one_dense, test::Rows::empty}) {
    const Model model = test::random_layers({50, 120, 90, 140, 70}, 9, 4, pattern);
    for (const std::int64_t phase : {0, 1, 2}) {
      HypergraphRequest request = request_for(3);
      request.speeds = {1.0, 2.0, 0.5};
      request.phase_layers = phase;
      const Partition partition = hypergraph_partition(model, request);
      const Traffic traffic = count_traffic(model, partition);
      const Limits limits = hypergraph::limits_of(model, request);
      for (std::size_t l = 0; l < traffic.layers.size(); ++l) {
        for (int p = 0; p < 3; ++p) {
          EXPECT_LE(traffic.layers[l].nonzeros[p], limits.most(static_cast<std::int64_t>(l), p));
        }
      }
      EXPECT_LE(traffic.words,
                count_traffic(model, proportional_partition(model, request.speeds)).words);
      request.threads = 2;
      const Partition again = hypergraph_partition(model, request);
      for (std::size_t l = 0; l < partition.layers.size(); ++l) {
        EXPECT_EQ(again.layers[l].rows, partition.layers[l].rows);
      }
    }
  }
}

TEST(Hypergraph, EveryLayerMeetsTheTargetsOfUnlikeParts) {
  // As a profile measures them: a fast device, two of half its rate, one far slower.
  const std::vector<double> speeds = {8.13e9, 4.02e9, 3.97e9, 0.61e9};
  const double all = std::accumulate(speeds.begin(), speeds.end(), 0.0);
  const Model model = test::random_layers({64, 700, 500, 900}, 16, 12, test::Rows::equal);
  HypergraphRequest request = request_for(4);
  request.speeds = speeds;
  std::vector<Partition> found = {hypergraph_partition(model, request)};
  if (have_zoltan()) found.push_back(zoltan_partition(model, request));
  for (const Partition& partition : found) {
    const Traffic traffic = count_traffic(model, partition);
    for (const LayerTraffic& layer : traffic.layers) {
      const auto sum = static_cast<double>(
          std::accumulate(layer.nonzeros.begin(), layer.nonzeros.end(), std::int64_t{0}));
      double missed = 0.0;
      for (int p = 0; p < 4; ++p) {
        const double share = sum * speeds[p] / all;
        const auto own = static_cast<double>(layer.nonzeros[p]);
        EXPECT_LE(own, std::max(1.03 * share, share + 16.0));
        missed += std::max(0.0, share - own);
      }
      // Nobody is above by more than that, so that together they are below by no more.
      EXPECT_LE(missed, 0.03 * sum + 4 * 16.0);
    }
    EXPECT_LE(imbalance(traffic, speeds), 16.0 / (500 * 16.0 * speeds[3] / all));
  }
  EXPECT_LT(count_traffic(model, found.front()).words,
            count_traffic(model, proportional_partition(model, speeds)).words);
}

TEST(Hypergraph, APartOfSpeedZeroGetsNothing) {
  const Model model = test::random_layers({20, 60, 60}, 5, 8, test::Rows::equal);
  HypergraphRequest request = request_for(3);
  request.speeds = {1.0, 0.0, 1.0};
  const Traffic traffic = count_traffic(model, hypergraph_partition(model, request));
  for (const LayerTraffic& layer : traffic.layers) EXPECT_EQ(layer.nonzeros[1], 0);
}

TEST(Hypergraph, ADeepButterflySendsFarLessThanCyclic) {
  RadixNetSpec spec;
  spec.neurons = 256;
  spec.layers = 12;
  Model model;
  for (std::int64_t l = 0; l < spec.layers; ++l) {
    model.layers.push_back(SparseLinear{radixnet_layer(spec, l), {0.0F}, {}});
  }
  for (const int parts : {2, 4}) {
    const Traffic traffic = count_traffic(model, hypergraph_partition(model, request_for(parts)));
    EXPECT_LE(imbalance(traffic), 0.03);
    EXPECT_LT(
        static_cast<double>(traffic.words),
        0.85 * static_cast<double>(count_traffic(model, cyclic_partition(model, parts)).words));
  }
  // A group of equal rows does not fit one of so many, and a short search must do.
  HypergraphRequest request = request_for(64);
  request.searches = 1;
  request.effort = 0.1;
  const Traffic traffic = count_traffic(model, hypergraph_partition(model, request));
  EXPECT_EQ(imbalance(traffic), 0.0);
  EXPECT_LT(traffic.words, count_traffic(model, cyclic_partition(model, 64)).words * 98 / 100);
}

TEST(Hypergraph, ZoltanKeepsTheSameLimitsOrIsMissed) {
  const Model model = test::random_layers({50, 120, 90, 140}, 9, 4);
  HypergraphRequest request = request_for(3);
  request.speeds = {1.0, 2.0, 0.5};
  if (!have_zoltan()) {
    EXPECT_THROW((void)zoltan_partition(model, request), InputError);
    return;
  }
  const Partition partition = zoltan_partition(model, request);
  const Traffic traffic = count_traffic(model, partition);
  const Limits limits = hypergraph::limits_of(model, request);
  for (std::size_t l = 0; l < traffic.layers.size(); ++l) {
    for (int p = 0; p < 3; ++p) {
      EXPECT_LE(traffic.layers[l].nonzeros[p], limits.most(static_cast<std::int64_t>(l), p));
    }
  }
  EXPECT_LT(traffic.words, count_traffic(model, random_partition(model, 3, 1)).words);
}

TEST(Hypergraph, RequestsOutOfBoundsAreRefused) {
  const Model model = test::random_layers({4, 6, 6}, 2, 1);
  const auto refused = [&](auto change) {
    HypergraphRequest request = request_for(2);
    change(request);
    EXPECT_THROW((void)hypergraph_partition(model, request), InputError);
  };
  refused([](HypergraphRequest& r) { r.speeds.clear(); });
  refused([](HypergraphRequest& r) { r.imbalance = -0.1; });
  refused([](HypergraphRequest& r) { r.effort = 0.0; });
  refused([](HypergraphRequest& r) { r.searches = 0; });
}

}  // namespace
}  // namespace spdnn
