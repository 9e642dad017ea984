// Partitions: makers, checks, and the count of what crosses against brute force.
#include "spdnn/partition.hpp"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <map>
#include <set>

#include "plan/random_model.hpp"

namespace spdnn {
namespace {

using test::random_layers;
using test::Rows;

/// Words by (layer, from, to), found neuron by neuron.
std::map<std::array<std::int64_t, 3>, std::int64_t> brute_force(const Model& model,
                                                                const Partition& partition) {
  std::map<std::array<std::int64_t, 3>, std::int64_t> words;
  const std::vector<CsrView> weights = partitioned_weights(model);
  for (std::size_t l = 1; l < weights.size(); ++l) {
    const auto from = owners_of(partition.layers[l - 1]);
    const auto to = owners_of(partition.layers[l]);
    std::set<std::array<std::int64_t, 2>> sent;  // neuron, reader
    for (std::int64_t row = 0; row < weights[l].rows; ++row) {
      for (std::int64_t k = weights[l].row_begin(row); k < weights[l].row_begin(row + 1); ++k) {
        const std::int64_t neuron = weights[l].col(k);
        if (from[neuron] == to[row] || !sent.insert({neuron, to[row]}).second) continue;
        ++words[{static_cast<std::int64_t>(l), from[neuron], to[row]}];
      }
    }
  }
  return words;
}

std::string message_of(const Partition& partition, const Model& model) {
  try {
    validate(partition, model);
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

std::vector<Partition> all_of(const Model& model, int parts) {
  std::vector<double> speeds(static_cast<std::size_t>(parts), 1.0);
  speeds.front() = 2.5;
  return {block_partition(model, parts), cyclic_partition(model, parts),
          random_partition(model, parts, 3), proportional_partition(model, speeds)};
}

TEST(Partition, EveryMakerOwnsEachRowOnce) {
  for (const int parts : {1, 2, 5, 40}) {
    for (const Rows pattern : {Rows::irregular, Rows::equal, Rows::one_dense, Rows::empty}) {
      const Model model = random_layers({9, 31, 0, 17, 1}, 6, 5, pattern);
      for (const Partition& partition : all_of(model, parts)) {
        EXPECT_EQ(message_of(partition, model), "no error");
        EXPECT_EQ(partition.parts(), parts);
      }
    }
  }
}

TEST(Partition, TrafficIsWhatBruteForceCounts) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    const Model model = random_layers({12, 20, 7, 33, 5}, 1 + static_cast<std::int64_t>(seed % 9),
                                      seed, seed % 3 == 0 ? Rows::grouped : Rows::irregular);
    for (const Partition& partition : all_of(model, 1 + static_cast<int>(seed % 6))) {
      const Traffic traffic = count_traffic(model, partition);
      std::map<std::array<std::int64_t, 3>, std::int64_t> counted;
      std::vector<std::int64_t> sent(partition.parts()), received(partition.parts());
      for (std::size_t l = 0; l < traffic.layers.size(); ++l) {
        std::int64_t words = 0;
        for (const Transfer& t : traffic.layers[l].transfers) {
          counted[{static_cast<std::int64_t>(l), t.from, t.to}] = t.words;
          words += t.words;
          sent[t.from] += t.words;
          received[t.to] += t.words;
        }
        EXPECT_EQ(words, traffic.layers[l].words);
      }
      EXPECT_EQ(counted, brute_force(model, partition)) << "seed " << seed;
      EXPECT_EQ(traffic.messages, std::ssize(counted));
      EXPECT_EQ(traffic.max_sent, *std::max_element(sent.begin(), sent.end()));
      EXPECT_EQ(traffic.max_received, *std::max_element(received.begin(), received.end()));
    }
  }
}

TEST(Partition, AWordForEachReaderButTheOwner) {
  // Two neurons; neuron 0 is read by rows 0 and 2, neuron 1 by rows 1 and 2.
  const Csr first = make_csr(2, 1, {0, 1, 2}, {0, 0}, {1.0F});
  const Csr second = make_csr(3, 2, {0, 1, 2, 4}, {0, 1, 0, 1}, {1.0F});
  Model model;
  model.layers = {SparseLinear{first, {0.0F}, {}}, SparseLinear{second, {0.0F}, {}}};
  const Partition partition = {model_key(model),
                               {partition_by_owners(std::vector<std::uint32_t>{0, 1}, 3),
                                partition_by_owners(std::vector<std::uint32_t>{0, 0, 2}, 3)}};
  const Traffic traffic = count_traffic(model, partition);
  EXPECT_TRUE(traffic.layers[0].transfers.empty());
  EXPECT_EQ(traffic.layers[1].transfers, (std::vector<Transfer>{{0, 2, 1}, {1, 0, 1}, {1, 2, 1}}));
  EXPECT_EQ(traffic.words, 3);
  EXPECT_EQ(traffic.layers[1].max_sent, 2);
  EXPECT_EQ(traffic.layers[1].max_received, 2);
  EXPECT_EQ(traffic.layers[1].nonzeros, (std::vector<std::int64_t>{2, 0, 2}));
  EXPECT_DOUBLE_EQ(imbalance(traffic), 0.5);
  EXPECT_DOUBLE_EQ(imbalance(traffic, {1, 1, 1}), 0.5);
  EXPECT_EQ(imbalance(traffic, {1, 0, 1}), std::numeric_limits<double>::infinity());
}

TEST(Partition, BlocksFollowTheWeightsAndTheSpeeds) {
  const Model model = random_layers({64, 2000, 3000}, 40, 11);
  EXPECT_LT(imbalance(count_traffic(model, block_partition(model, 7))), 0.05);
  const std::vector<double> speeds = {1.0, 3.0, 0.5, 0.0};
  EXPECT_LT(imbalance(count_traffic(model, proportional_partition(model, speeds)), speeds), 0.05);
}

TEST(Partition, KeyIsOfThePatternHoweverItIsStored) {
  // 70,000 columns take 32-bit indices, 60,000 take 16.
  const auto model_of = [](std::int64_t cols, std::vector<float> values, std::uint32_t last = 3) {
    Model model;
    model.layers = {
        SparseLinear{make_csr(2, cols, {0, 2, 3}, {5, 1, last}, std::move(values)), {0.0F}, {}}};
    return model;
  };
  EXPECT_EQ(model_key(model_of(60'000, {1.0F})), model_key(model_of(60'000, {1.0F, 2.0F, 3.0F})));
  EXPECT_NE(model_key(model_of(60'000, {1.0F})), model_key(model_of(70'000, {1.0F})));
  EXPECT_NE(model_key(model_of(60'000, {1.0F})), model_key(model_of(60'000, {1.0F}, 4)));
  // The same matrix, with indices of either width.
  const std::vector<std::uint16_t> narrow = {5, 1, 3};
  const std::vector<std::uint32_t> wide = {5, 1, 3};
  const std::vector<std::int64_t> offsets = {0, 2, 3};
  const float one = 1.0F;
  CsrView view{2, 9, 3, offsets.data(), 0, narrow.data(), &one, DType::u16, DType::f32, true};
  Model a;
  a.layers = {SparseLinear{Csr(view, nullptr), {0.0F}, {}}};
  view.col_indices = wide.data();
  view.index_type = DType::u32;
  Model b;
  b.layers = {SparseLinear{Csr(view, nullptr), {0.0F}, {}}};
  EXPECT_EQ(model_key(a), model_key(b));
}

TEST(Partition, BadOnesAreRefusedWithTheirPlace) {
  const Model model = random_layers({8, 10, 6}, 4, 2);
  const Partition good = block_partition(model, 3);
  const auto broken = [&](auto change) {
    Partition partition = good;
    change(partition);
    return message_of(partition, model);
  };
  using P = Partition&;
  EXPECT_EQ(broken([](P p) { p.layers.pop_back(); }),
            "the partition has 1 layers, but the network has 2");
  EXPECT_EQ(broken([](P p) { p.layers[1].rows.pop_back(); }),
            "partition, layer 2: 5 rows, but the network's layer has 6");
  EXPECT_EQ(broken([](P p) { p.layers[1].offsets.push_back(6); }),
            "partition, layer 2: 4 parts, but layer 1 has 3");
  EXPECT_EQ(broken([](P p) { p.layers[0].offsets[1] = 11; }),
            "partition, layer 1: offsets must ascend from 0 to the 10 rows");
  EXPECT_EQ(broken([](P p) { p.layers[0].rows[1] = 0; }),
            "partition, layer 1: row 0 is owned twice");
  EXPECT_EQ(broken([](P p) { p.layers[0].rows[0] = 10; }),
            "partition, layer 1: part 0 owns row 10 of 10");
  EXPECT_EQ(broken([](P p) { std::swap(p.layers[0].rows[0], p.layers[0].rows[1]); }),
            "partition, layer 1: rows of part 0 are not ascending at row 0");
  EXPECT_NE(broken([](P p) { ++p.model_key; }).find("other weights"), std::string::npos);
  EXPECT_THROW((void)block_partition(model, 0), InputError);
  EXPECT_THROW((void)cyclic_partition(model, kMaxParts + 1), InputError);
  EXPECT_THROW((void)proportional_partition(model, {1.0, -1.0}), InputError);
  EXPECT_THROW((void)proportional_partition(model, {0.0, 0.0}), InputError);
  EXPECT_THROW((void)partition_by_owners(std::vector<std::uint32_t>{0, 2}, 2), InputError);
}

}  // namespace
}  // namespace spdnn
