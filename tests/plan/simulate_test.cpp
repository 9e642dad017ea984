// Simulated steps against sums done by hand.
#include "spdnn/simulate.hpp"

#include <gtest/gtest.h>

#include "plan/random_model.hpp"

namespace spdnn {
namespace {

/// Two layers of four rows with one weight each: row r of the second reads neuron 3 − r.
Model crossing() {
  const Csr first = make_csr(4, 4, {0, 1, 2, 3, 4}, {0, 1, 2, 3}, {1.0F});
  const Csr second = make_csr(4, 4, {0, 1, 2, 3, 4}, {3, 2, 1, 0}, {1.0F});
  Model model;
  model.layers = {SparseLinear{first, {0.0F}, {}}, SparseLinear{second, {0.0F}, {}}};
  return model;
}

StepCost cost_of(std::int64_t batch) {
  StepCost cost;
  cost.batch = batch;
  cost.forward = 1.5;
  cost.backward_data = 2.0;
  cost.backward_weights = 3.0;
  cost.update = 7.0;
  return cost;
}

TEST(Simulate, AStepIsItsComputeAndItsExchanges) {
  const Model model = crossing();
  const Partition partition = block_partition(model, 2);
  const Traffic traffic = count_traffic(model, partition);
  ASSERT_EQ(traffic.words, 4);  // two each way
  Cluster cluster;
  cluster.network = {10.0, 100.0, 4.0};
  const StepCost cost = cost_of(3);
  // Two rows of one weight: 3 · 2 · 1.5 s a layer; two words of three images: 24 bytes.
  const double forward = 9.0;
  const double exchange = 10.0 + 100.0 + 24.0 / 4.0;
  StepTime time = simulate_step(partition, traffic, cost, cluster, {});
  EXPECT_DOUBLE_EQ(time.compute_s, 2 * forward);
  EXPECT_DOUBLE_EQ(time.exchange_s, exchange);
  EXPECT_DOUBLE_EQ(time.seconds, 2 * forward + exchange);
  // Backward: weights of both layers, data of the second, an update of two weights a layer.
  time = simulate_step(partition, traffic, cost, cluster, {true, false});
  EXPECT_DOUBLE_EQ(time.compute_s, 2 * forward + 2 * (18.0 + 14.0) + 12.0);
  // And of the loss, four words of three images.
  EXPECT_DOUBLE_EQ(time.exchange_s, 2 * exchange + 10.0 + 100.0 + 48.0 / 4.0);
}

TEST(Simulate, LinksAreChosenByWhereRanksLive) {
  const Model model = crossing();
  const Partition partition = block_partition(model, 4);
  const Traffic traffic = count_traffic(model, partition);
  const StepCost free;
  Cluster cluster{1, 2, {1.0, 0.0, 0.0}, {10.0, 0.0, 0.0}, {100.0, 0.0, 0.0}};
  // Rank 0 meets 3, 1 meets 2.
  EXPECT_EQ(simulate_step(partition, traffic, free, cluster, {}).seconds, 100.0);
  cluster.ranks_per_node = 4;
  EXPECT_EQ(simulate_step(partition, traffic, free, cluster, {}).seconds, 10.0);
  cluster.ranks_per_process = 4;
  EXPECT_EQ(simulate_step(partition, traffic, free, cluster, {}).seconds, 1.0);
}

TEST(Simulate, OneRankExchangesNothing) {
  const Model model = test::random_layers({8, 20, 20}, 4, 1);
  const Partition partition = block_partition(model, 1);
  Cluster cluster;
  cluster.network = cluster.node = cluster.process = {1.0, 1.0, 1.0};
  const StepTime time =
      simulate_step(partition, count_traffic(model, partition), cost_of(1), cluster, {true, false});
  EXPECT_EQ(time.exchange_s, 0.0);
  EXPECT_EQ(time.seconds, time.compute_s);
}

TEST(Simulate, WhatARankDoesForAnExchangeIsHiddenBehindNothing) {
  const Model model = crossing();
  const Partition partition = block_partition(model, 2);
  const Traffic traffic = count_traffic(model, partition);
  StepCost cost;
  cost.batch = 3;
  cost.exchange = {100.0, 0.0, 10.0, 1.0};
  cost.loss = 1000.0;
  // Each rank sends two words of three images and receives as many, and has two own rows.
  const double own = 100.0 + 10.0 * 12.0 + 6.0;
  EXPECT_DOUBLE_EQ(simulate_step(partition, traffic, cost, {}, {false, true}).seconds, own);
  // There and back, and of the loss four words each way. Two own outputs of three images.
  const StepTime time = simulate_step(partition, traffic, cost, {}, {true, true});
  EXPECT_DOUBLE_EQ(time.seconds, 2.0 * own + 100.0 + 10.0 * 24.0 + 12.0 + 6.0 * 1000.0);
  // Until another rank sees a message, others compute.
  cost.exchange.latency = 1000.0;
  EXPECT_DOUBLE_EQ(simulate_step(partition, traffic, cost, {}, {false, false}).seconds,
                   own + 1000.0);
}

TEST(Simulate, ChunksHideBehindOneAnother) {
  const Model model = crossing();
  const Partition partition = block_partition(model, 2);
  const Traffic traffic = count_traffic(model, partition);
  const auto seconds = [&](std::int64_t chunks, const LinkClass& link, StepRequest request) {
    StepCost cost = cost_of(3);
    cost.exchanges = chunks;
    Cluster cluster;
    cluster.network = link;
    return simulate_step(partition, traffic, cost, cluster, request).seconds;
  };
  // The first layer takes 9 s and reads nothing of others; the second 9 s as well, and 24 bytes.
  // A batch in one piece waits for what travels.
  EXPECT_DOUBLE_EQ(seconds(1, {50.0, 0.0, 4.0}, {false, true}), 9.0 + 9.0 + 6.0 + 50.0);
  // A half waits for half of it, but for all of the latency.
  EXPECT_DOUBLE_EQ(seconds(2, {50.0, 0.0, 4.0}, {false, true}), 9.0 + (9.0 + 6.0) / 2 + 50.0);
  EXPECT_DOUBLE_EQ(seconds(2, {1.0, 0.0, 4.0}, {false, true}), 9.0 + 9.0);
  EXPECT_DOUBLE_EQ(seconds(2, {1.0, 0.0, 0.25}, {false, true}), 9.0 + 96.0);
  EXPECT_DOUBLE_EQ(seconds(2, {1.0, 50.0, 0.0}, {false, true}), 9.0 + 2 * 50.0);
  // On the way back the gradient by weights, 18 s, hides what travels in one piece as well. Two
  // updates of 14 s; the words of the loss, 48 bytes, hide behind nothing.
  const double others = 9.0 + 18.0 + 2 * 14.0;
  EXPECT_DOUBLE_EQ(seconds(1, {10.0, 0.0, 4.0}, {true, true}),
                   others + (9.0 + 16.0) + (12.0 + 18.0) + 22.0);
  EXPECT_DOUBLE_EQ(seconds(1, {30.0, 0.0, 4.0}, {true, true}),
                   others + (9.0 + 36.0) + (12.0 + 36.0) + 42.0);
  EXPECT_DOUBLE_EQ(seconds(2, {30.0, 0.0, 4.0}, {true, true}),
                   others + (7.5 + 30.0) + (9.0 + 30.0) + (6.0 + 30.0));
}

}  // namespace
}  // namespace spdnn
