// Ranks that own rows and send one another what these read: the bits of one rank for every
// partition, and no byte but those that the partition predicts.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "ranks.hpp"
#include "row_layers.hpp"
#include "support/networks.hpp"
#include "weights.hpp"

namespace spdnn {
namespace {

using test::Rows;

struct Network {
  Model model;
  Csr images;
};

SparseLinear random_linear(std::int64_t outputs, std::int64_t inputs, std::mt19937_64& random) {
  SparseLinear layer;
  layer.weights = test::random_csr(
      {outputs, inputs, 7, random() % 2 == 0 ? Rows::equal : Rows::irregular, random() % 3 == 0},
      random);
  layer.bias = {-0.02F * static_cast<float>(random() % 20)};
  if (random() % 2 == 0)
    layer.bias = test::random_floats(static_cast<std::size_t>(outputs), random);
  layer.activation = {0.0F, 4.0F};
  return layer;
}

Network linear_network(std::mt19937_64& random) {
  Network network;
  const auto some = [&] { return static_cast<std::int64_t>(random() % 40); };
  std::int64_t width = 24 + some();
  network.images = test::random_csr(
      {static_cast<std::int64_t>(random() % 300), width, 6, Rows::irregular, true}, random);
  const auto layers = 1 + random() % 10;
  for (std::size_t l = 0; l < layers; ++l) {
    const std::int64_t outputs = 5 + some();
    network.model.layers.emplace_back(random_linear(outputs, width, random));
    width = outputs;
  }
  return network;
}

/// Two convolutions around a pooling, and linear layers behind them.
Network planes_network(std::mt19937_64& random) {
  Network network;
  Window2d window = make_window(3, 8, 8, 3, 1, std::nullopt);
  const auto convolve = [&](std::int64_t filters) {
    SparseConv2d layer;
    layer.window = window;
    layer.weights = test::random_csr(
        {filters, window.channels * window.taps(), 9, Rows::irregular, false}, random);
    layer.bias = test::random_floats(static_cast<std::size_t>(filters), random);
    layer.activation = {0.0F, 4.0F};
    network.model.layers.emplace_back(std::move(layer));
  };
  network.images = test::random_csr({100, window.inputs(), 60, Rows::irregular, true}, random);
  convolve(11);
  window = make_window(11, 8, 8, 2, 2, 0);
  network.model.layers.emplace_back(Pool2d{window, LayerKind::max_pool});
  window = make_window(11, 4, 4, 3, 1, std::nullopt);
  convolve(7);
  network.model.layers.emplace_back(random_linear(30, 7 * 16, random));
  network.model.layers.emplace_back(random_linear(10, 30, random));
  return network;
}

struct Choice {
  Strategy strategy = Strategy::data;
  PartitionSpec partition;
  std::vector<double> speeds = {1.0};
  std::int64_t batch = 64;
  std::int64_t model_ranks = 2;  ///< under `grid`
};

/// What the planner would measure.
Profile profile_of(const Model& model, std::size_t ranks) {
  Profile profile;
  DeviceProfile rank;
  rank.device.kind = DeviceKind::cpu;
  rank.memory_limit = std::int64_t{1} << 30;
  const char* names[] = {"panel", "conv_tile", "pool", "pool"};
  for (std::int64_t kind = 0; kind < 4; ++kind)
    rank.times.push_back({{names[kind], "", 1e-6, 256}});
  profile.shapes.resize(4);
  for (const Layer& layer : model.layers) {
    profile.shape_of_layer.push_back(static_cast<std::int64_t>(layer_kind(layer)));
  }
  profile.ranks.assign(ranks, rank);
  return profile;
}

struct Ran {
  Outcome outcome;
  std::vector<LayerPartition> owners;
};

Ran run_network(const Network& network, const Choice& choice) {
  PlanRequest request;
  request.strategy = choice.strategy;
  request.split = {SplitKind::ratios, choice.speeds};
  request.batch = choice.batch;
  request.own_rows = true;
  request.model_ranks = choice.model_ranks;
  const Plan plan = make_plan(stats_of(network.model, network.images),
                              profile_of(network.model, choice.speeds.size()), request);
  Ran ran;
  if (plan.own_rows) ran.owners = divide_rows(choice.partition, network.model, plan.grid.rows);
  SharedForms forms(network.model);
  const std::vector<std::int64_t> none;
  Progress progress;
  PassContext context;
  context.model = &network.model;
  context.images = &network.images;
  context.plan = &plan;
  context.dead_from = dead_stays_dead_from(network.model);
  context.keep_first = network.images.rows();
  context.keep_ids = &none;
  context.alike_from = std::ssize(network.model.layers);
  context.progress = &progress;
  context.forms = &forms;
  context.rows = &ran.owners;
  const std::unique_ptr<World> world = single_world();
  const std::vector<DeviceSpec> specs(choice.speeds.size());
  ran.outcome = run_all_ranks(context, {*world, specs, {0, std::ssize(specs)}}, false);
  return ran;
}

/// Sent bytes are what the owners let expect of the images that each layer was computed for, which
/// the first rank of each group counts.
void expect_predicted(const Network& network, const Ran& ran) {
  const Traffic traffic = count_traffic(network.model, {model_key(network.model), ran.owners});
  const std::size_t layers = network.model.layers.size();
  for (std::size_t l = 0; l <= layers; ++l) {
    std::int64_t sent = 0;
    std::int64_t images = 0;
    for (const PassResult& rank : ran.outcome.ranks) {
      if (!rank.sent.empty()) sent += rank.sent[l];
      if (rank.images_per_layer.empty()) continue;
      images += l < layers ? rank.images_per_layer[l] : rank.gathered;
    }
    const std::int64_t words =
        l < layers ? traffic.layers[l].words
                   : network.model.outputs() - std::ssize(part_of(ran.owners.back(), 0));
    EXPECT_EQ(sent, 4 * words * images) << "layer " << l;
  }
}

TEST(OwnedRows, GiveTheBitsOfOneRankAndSendWhatIsPredicted) {
  const char* names[] = {"auto", "cyclic", "random", "hypergraph"};
  for (std::uint64_t round = 0; round < 60; ++round) {
    std::mt19937_64 random(round);
    const Network network = linear_network(random);
    Choice choice;
    choice.strategy = Strategy::model;
    choice.partition.model = names[round % 4];
    choice.speeds.assign(1 + random() % 8, 1.0);
    for (double& speed : choice.speeds) speed = static_cast<double>(random() % 3);
    choice.speeds[random() % choice.speeds.size()] = 1.0;
    choice.batch = 1 + static_cast<std::int64_t>(random() % 100);
    SCOPED_TRACE(fmt::format("round {}, {} on {} ranks, batch {}", round, choice.partition.model,
                             choice.speeds.size(), choice.batch));
    const Ran one = run_network(network, {});
    const Ran got = run_network(network, choice);
    EXPECT_EQ(got.outcome.ids, one.outcome.ids);
    EXPECT_TRUE(got.outcome.outputs == one.outcome.outputs) << "outputs differ";
    expect_predicted(network, got);
    if (HasFailure()) return;
  }
}

/// Groups of every size, some ranks left out, some groups without an image.
TEST(OwnedRows, OfGroupsThatShareImages) {
  const char* names[] = {"auto", "cyclic"};
  for (std::uint64_t round = 0; round < 40; ++round) {
    std::mt19937_64 random(1000 + round);
    const Network network = linear_network(random);
    Choice choice;
    choice.strategy = Strategy::grid;
    choice.partition.model = names[round % 2];
    choice.model_ranks = 1 + static_cast<std::int64_t>(random() % 3);
    choice.speeds.clear();
    const auto groups = 1 + random() % 4;
    for (std::size_t r = 0; r < groups * static_cast<std::size_t>(choice.model_ranks); ++r) {
      choice.speeds.push_back(static_cast<double>(1 + random() % 9));
    }
    for (std::size_t out = random() % 3; out > 0; --out) {
      choice.speeds.insert(choice.speeds.begin() + random() % choice.speeds.size(), 0.0);
    }
    choice.batch = 1 + static_cast<std::int64_t>(random() % 100);
    SCOPED_TRACE(fmt::format("round {}, {} groups of {}, {} ranks, batch {}", round, groups,
                             choice.model_ranks, choice.speeds.size(), choice.batch));
    const Ran one = run_network(network, {});
    const Ran got = run_network(network, choice);
    EXPECT_EQ(got.outcome.ids, one.outcome.ids);
    EXPECT_TRUE(got.outcome.outputs == one.outcome.outputs) << "outputs differ";
    expect_predicted(network, got);
    std::int64_t begun = 0;
    for (const PassResult& rank : got.outcome.ranks) begun += rank.begun;
    EXPECT_EQ(begun, network.images.rows());
    if (HasFailure()) return;
  }
}

TEST(OwnedRows, OfPlanesAreFiltersAndTheirPoolings) {
  std::mt19937_64 random(7);
  const Network network = planes_network(random);
  const Ran one = run_network(network, {});
  ASSERT_FALSE(one.outcome.ids.empty());
  for (std::size_t ranks = 1; ranks <= 5; ++ranks) {
    Choice choice;
    choice.strategy = Strategy::model;
    choice.speeds.assign(ranks, 1.0);
    choice.speeds.back() = 0.4;
    const Ran got = run_network(network, choice);
    EXPECT_EQ(got.outcome.ids, one.outcome.ids);
    EXPECT_TRUE(got.outcome.outputs == one.outcome.outputs) << "outputs differ";
  }
  Choice choice;
  choice.strategy = Strategy::model;
  choice.speeds.assign(2, 1.0);
  choice.partition.model = "cyclic";  // of matrices alone
  EXPECT_THROW(static_cast<void>(run_network(network, choice)), InputError);
}

}  // namespace
}  // namespace spdnn
