// Simulated steps against sums done by hand, and the cost of kernels that they start from.
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
  cost.forward = {1.0, 0.5};
  cost.backward_data = {2.0, 0.0};
  cost.backward_weights = {3.0, 0.0};
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
  // Two rows of one weight: 3 · (2 + 1) s a layer; two words of three images: 24 bytes.
  const double forward = 9.0;
  const double exchange = 10.0 + 100.0 + 24.0 / 4.0;
  StepTime time = simulate_step(partition, traffic, cost, cluster, {});
  EXPECT_DOUBLE_EQ(time.compute_s, 2 * forward);
  EXPECT_DOUBLE_EQ(time.exchange_s, exchange);
  EXPECT_DOUBLE_EQ(time.seconds, 2 * forward + exchange);
  StepCost halved = cost;
  halved.exchanges = 2;
  time = simulate_step(partition, traffic, halved, cluster, {false, true});
  EXPECT_DOUBLE_EQ(time.seconds, forward + exchange);
  // Backward: weights of both layers, data of the second, an update of two weights a layer.
  time = simulate_step(partition, traffic, cost, cluster, {true, false});
  EXPECT_DOUBLE_EQ(time.compute_s, 2 * forward + 2 * (18.0 + 14.0) + 12.0);
  EXPECT_DOUBLE_EQ(time.exchange_s, 3 * exchange);  // and the outputs, as many words
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
  cost.exchange = {100.0, 10.0, 1.0};
  cost.loss = 1000.0;
  // Each rank sends two words of three images and receives as many, and has two own rows.
  const double own = 100.0 + 10.0 * 12.0 + 6.0;
  EXPECT_DOUBLE_EQ(simulate_step(partition, traffic, cost, {}, {false, true}).seconds, own);
  // There and back, and the outputs: two rows each way. Four outputs of three images.
  StepTime time = simulate_step(partition, traffic, cost, {}, {true, true});
  EXPECT_DOUBLE_EQ(time.seconds, 3.0 * own + 12.0 * 1000.0);
  // A batch in one piece waits for what travels, on the way forward.
  Cluster cluster;
  cluster.process = cluster.network = {5000.0, 0.0, 0.0};
  time = simulate_step(partition, traffic, cost, cluster, {true, true});
  EXPECT_DOUBLE_EQ(time.seconds, own + 5000.0 + 5000.0 + own + 5000.0 + 12.0 * 1000.0);
  cost.exchanges = 2;
  time = simulate_step(partition, traffic, cost, cluster, {true, true});
  EXPECT_DOUBLE_EQ(time.seconds, 5000.0 + 5000.0 + 100.0 + own + 12.0 * 1000.0);
}

TEST(Simulate, KernelsTakeTime) {
  const StepCost cost = measure_step_cost(DeviceSpec{}, 64, 2);
  EXPECT_EQ(cost.batch, 64);
  EXPECT_EQ(cost.exchanges, 2);
  EXPECT_GT(cost.loss, 0.0);
  EXPECT_GT(cost.exchange.call, 0.0);
  EXPECT_GT(cost.exchange.word, 0.0);
  for (const KernelCost& kernel : {cost.forward, cost.backward_data, cost.backward_weights}) {
    EXPECT_GT(kernel.entry, 0.0);
    EXPECT_GE(kernel.row, 0.0);
  }
  EXPECT_GT(cost.update, 0.0);
  EXPECT_THROW((void)measure_step_cost(DeviceSpec{}, 0), InputError);
}

}  // namespace
}  // namespace spdnn
