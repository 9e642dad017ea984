// What simulated steps start from: one rank's share of a network without the other ranks, and what
// it takes of its own time.
#include <gtest/gtest.h>

#include <mutex>

#include "shard.hpp"
#include "spdnn/simulate.hpp"
#include "support/networks.hpp"
#include "trial_step.hpp"

namespace spdnn::train {
namespace {

constexpr Epilogue kRelu{0.0F, 1e9F};

/// Layers between `widths`, of up to `row_nnz` weights a row.
Model random_layers(const std::vector<std::int64_t>& widths, std::int64_t row_nnz) {
  std::mt19937_64 random(5);
  Model model;
  for (std::size_t l = 0; l + 1 < widths.size(); ++l) {
    model.layers.push_back(SparseLinear{
        test::random_csr({widths[l + 1], widths[l], row_nnz, test::Rows::irregular}, random),
        {0.0F},
        {}});
  }
  return model;
}

/// The rows of a rank's part, as a run has them.
std::vector<Pattern> rows_of(const std::vector<CsrView>& weights, const Partition& partition,
                             int rank) {
  std::vector<Pattern> all;
  for (std::size_t l = 0; l < weights.size(); ++l) {
    std::vector<std::int64_t> offsets = {0};
    std::vector<std::uint32_t> columns;
    for (const std::uint32_t row : part_of(partition.layers[l], rank)) {
      for (std::int64_t k = weights[l].row_begin(row); k < weights[l].row_begin(row + 1); ++k) {
        columns.push_back(static_cast<std::uint32_t>(weights[l].col(k)));
      }
      std::sort(columns.begin() + offsets.back(), columns.end());
      offsets.push_back(std::ssize(columns));
    }
    const auto rows = std::ssize(offsets) - 1;
    all.emplace_back(rows, weights[l].cols, std::move(offsets), std::move(columns));
  }
  return all;
}

void expect_equal(const std::vector<HaloPiece>& found, const std::vector<HaloPiece>& asked) {
  ASSERT_EQ(found.size(), asked.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].peer, asked[i].peer);
    EXPECT_EQ(found[i].rows, asked[i].rows);
  }
}

void expect_equal(const Shard& found, const Shard& asked) {
  ASSERT_EQ(found.halos.size(), asked.halos.size());
  EXPECT_EQ(found.units, asked.units);
  EXPECT_EQ(found.interior, asked.interior);
  EXPECT_EQ(found.columns, asked.columns);
  EXPECT_EQ(found.outputs, asked.outputs);
  EXPECT_EQ(found.all_outputs, asked.all_outputs);
  for (std::size_t l = 0; l < asked.layers.size(); ++l) {
    EXPECT_EQ(found.layers[l].pattern.row_offsets(), asked.layers[l].pattern.row_offsets());
    EXPECT_EQ(found.layers[l].pattern.col_indices(), asked.layers[l].pattern.col_indices());
    EXPECT_EQ(found.layers[l].inputs(), asked.layers[l].inputs());
  }
  for (std::size_t l = 0; l < asked.halos.size(); ++l) {
    const Halo& a = found.halos[l];
    const Halo& b = asked.halos[l];
    EXPECT_EQ(a.crosses, b.crosses) << l;
    EXPECT_EQ(a.in_place, b.in_place) << l;
    EXPECT_EQ(a.own_from, b.own_from) << l;
    EXPECT_EQ(a.own_to, b.own_to) << l;
    expect_equal(a.sends, b.sends);
    expect_equal(a.receives, b.receives);
  }
}

TEST(MeasuredStep, ARanksShareIsWhatAskingTheOthersFinds) {
  const Model model = random_layers({9, 31, 1, 40, 32}, 7);
  const std::vector<CsrView> weights = partitioned_weights(model);
  std::vector<TrainLayer> layers;
  for (const CsrView& matrix : weights) {
    layers.push_back(linear_layer(Pattern::dense(matrix.rows, matrix.cols), kRelu));
  }
  for (const int ranks : {1, 2, 3, 8}) {
    const Partition partition = random_partition(model, ranks, 3);
    std::mutex mutex;
    run_ranks(ranks, [&](Communicator& comm) {
      const Shard asked =
          make_shard(comm, layers, partition.layers, rows_of(weights, partition, comm.rank()));
      const std::scoped_lock lock(mutex);
      expect_equal(shard_of(weights, partition.layers, kRelu, comm.rank()), asked);
    });
  }
}

TEST(MeasuredStep, NobodyElseNeedBeThere) {
  Alone alone(1, 3);
  const std::vector<std::int64_t> counts = {1, 2, 1};
  const std::int32_t own[] = {7, 8};
  std::int32_t all[4] = {};
  alone.all_gather(own, all, counts, DType::i32, nullptr);
  EXPECT_EQ(std::vector<std::int32_t>(all, all + 4), (std::vector<std::int32_t>{7, 7, 8, 7}));
  alone.all_reduce(own, all, 2, DType::i32, Reduction::sum, nullptr);
  EXPECT_EQ(all[1], 8);
  const std::int32_t pieces[] = {1, 2, 3, 4};
  alone.reduce_scatter(pieces, all, counts, DType::i32, Reduction::sum, nullptr);
  EXPECT_EQ(all[0], 2);
  EXPECT_EQ(all[1], 3);
  alone.start_exchange({}, {}, nullptr)->finish();
  EXPECT_THROW(alone.abort("over"), CommError);
}

TEST(MeasuredStep, RanksTakeTimeOfTheirOwn) {
  const Model model = random_layers({40, 50, 60, 40}, 8);
  const ExchangeCost others = {1.0, 2.0, 3.0, 0.0};
  for (const int parts : {1, 2, 5}) {
    const StepCost cost = measure_step_cost(model, cyclic_partition(model, parts), 64, 2, others);
    EXPECT_EQ(cost.batch, 64);
    EXPECT_EQ(cost.exchanges, 2);
    for (const double seconds :
         {cost.forward, cost.backward_data, cost.backward_weights, cost.update, cost.loss}) {
      EXPECT_GT(seconds, 0.0);
    }
    EXPECT_EQ(cost.exchange.call, others.call);
    EXPECT_EQ(cost.exchange.latency, others.latency);
    if (parts == 1) continue;
    EXPECT_GT(cost.exchange.own, 0.0);
    EXPECT_EQ(cost.exchange.word, others.word + cost.exchange.own);
  }
  EXPECT_THROW(
      static_cast<void>(measure_step_cost(model, cyclic_partition(model, 2), 0, 2, others)),
      InputError);
  EXPECT_THROW(static_cast<void>(measure_step_cost(
                   model, cyclic_partition(random_layers({40, 50}, 8), 2), 1, 2, others)),
               InputError);
}

TEST(MeasuredStep, ExchangesCostNothingLessThanNothing) {
  const ExchangeCost cost = measure_exchange_cost(2, 3);
  EXPECT_GE(cost.call, 0.0);
  EXPECT_GE(cost.latency, 0.0);
  EXPECT_GE(cost.word, 0.0);
  EXPECT_EQ(cost.own, 0.0);
  EXPECT_THROW(static_cast<void>(measure_exchange_cost(2, 0)), InputError);
}

}  // namespace
}  // namespace spdnn::train
