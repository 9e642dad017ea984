// Training over NCCL as a fake has it: every call of a step's forward, backward and gradient
// exchange fits those of the other ranks, and the results are the bits of ranks without NCCL. Where
// tests are built for the SIMT layer, its devices' memory is what goes over NCCL.
#include <gtest/gtest.h>

#include <algorithm>

#include "batch_pass.hpp"
#include "rows.hpp"
#include "spdnn/random.hpp"
#include "step_cost.hpp"
#include "support/devices.hpp"
#include "support/fake_nccl.hpp"
#include "train/images.hpp"

namespace spdnn {
namespace {

/// A CPU rank, or one on the SIMT layer.
DeviceSpec a_device() { return test::tested_devices().front(); }

TrainResult run(const TrainSpec& spec, int ranks, bool nccl) {
  TrainHooks hooks;
  if (nccl) {
    hooks.run_ranks = [&](const std::function<void(Communicator&)>& body) {
      test::run_nccl_ranks(ranks, body);
    };
  }
  return train_network(spec, test::made_up_images(300, 1), test::made_up_images(50, 2),
                       std::vector<DeviceSpec>(static_cast<std::size_t>(ranks), a_device()), hooks);
}

std::int64_t calls_that_start_with(const std::string& name, int ranks) {
  std::int64_t count = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto calls = test::nccl_calls(rank);
    count += std::count_if(calls.begin(), calls.end(),
                           [&](const std::string& call) { return call.starts_with(name); });
  }
  return count;
}

/// A network of three layers whose rows ranks share unevenly, every fifth of them none.
struct SharedNetwork {
  std::vector<train::TrainLayer> layers;
  std::vector<LayerPartition> partition;

  explicit SharedNetwork(int ranks) {
    Random random(11, 0);
    std::int64_t inputs = 20;
    std::vector<double> shares;
    for (int rank = 0; rank < ranks; ++rank) shares.push_back(rank % 5 == 4 ? 0.0 : 1.0 + rank % 3);
    for (const std::int64_t outputs : {37, 29, 11}) {
      std::vector<std::int64_t> offsets = {0};
      std::vector<std::uint32_t> indices;
      for (std::int64_t row = 0; row < outputs; ++row) {
        for (std::int64_t col = 0; col < inputs; ++col) {
          if (random.below(4) == 0) indices.push_back(static_cast<std::uint32_t>(col));
        }
        offsets.push_back(std::ssize(indices));
      }
      layers.push_back(
          train::linear_layer(train::Pattern(outputs, inputs, offsets, indices), {0.0F, 9.0F}));
      inputs = outputs;
    }
    partition = train::split_units(layers, shares);
  }
  [[nodiscard]] train::Shard shard_of(Communicator& comm) const {
    std::vector<train::Pattern> rows;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      rows.push_back(train::select_rows(layers[l].pattern, part_of(partition[l], comm.rank())));
    }
    return train::make_shard(comm, layers, partition, rows);
  }
};

class NcclTraining : public testing::Test {
 protected:
  static TrainSpec short_spec() {
    TrainSpec spec = test::small_spec();
    spec.epochs = 1;
    return spec;
  }
  static void expect_same_bits(const TrainSpec& spec, int ranks) {
    test::reset_fake_nccl();
    const TrainResult memory = run(spec, ranks, false);
    const TrainResult nccl = run(spec, ranks, true);
    EXPECT_EQ(test::parameters_of(memory.model), test::parameters_of(nccl.model));
    EXPECT_EQ(memory.epochs.at(0).train.loss, nccl.epochs.at(0).train.loss);
    EXPECT_EQ(test::open_nccl_groups(), 0);
    EXPECT_EQ(test::aborted_nccl_groups(), 0);
  }
};
class NcclTrainingOf : public NcclTraining, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, NcclTrainingOf, testing::Range(1, 9));

TEST_P(NcclTrainingOf, RowsOfUnevenRanks) {
  TrainSpec spec = short_spec();
  spec.model_ranks = GetParam();
  spec.split.kind = SplitKind::ratios;
  for (int rank = 0; rank < GetParam(); ++rank) spec.split.ratios.push_back(1.0 + rank % 3);
  if (GetParam() > 2) spec.split.ratios[1] = 0.0;
  expect_same_bits(spec, GetParam());
  if (GetParam() > 1) {
    EXPECT_GT(calls_that_start_with("send", GetParam()), 0);
  }
}

TEST_P(NcclTrainingOf, ImagesOfAllRanks) {
  expect_same_bits(short_spec(), GetParam());
  if (GetParam() > 1) {
    EXPECT_GT(calls_that_start_with("all_reduce", GetParam()), 0);
  }
}

/// Before each layer but the first, and before the loss, a batch's two chunks go forward; on the
/// way back those of each layer but the first; then the gradient is summed.
TEST_P(NcclTrainingOf, CallsOfAStepAreThoseOfItsHalos) {
  const SharedNetwork shared(GetParam());
  test::reset_fake_nccl();
  test::run_nccl_ranks(GetParam(), [&](Communicator& comm) {
    const auto device = open_device(a_device());
    const auto stream = device->make_stream();
    const std::int64_t width = panel_width(device->info());
    train::Shard shard = shared.shard_of(comm);
    train::Network<float> network(std::move(shard.layers), train::kernels_for(*device), *device,
                                  *stream);
    network.initialize(1);
    train::BatchPass<float> pass(network, shard, comm, 2 * width);
    const std::vector<float> x(static_cast<std::size_t>(2 * width * 20), 0.5F);
    const std::vector<std::int32_t> labels(static_cast<std::size_t>(width + 8));
    const auto before = static_cast<std::ptrdiff_t>(test::nccl_calls(comm.rank()).size());
    pass.start({x.data(), 20, width + 8, width, nullptr}, Loss::cross_entropy, labels.data(), 0.1F);
    static_cast<void>(pass.finish_loss(nullptr));
    pass.backward();
    const Buffer gradient = device->allocate(17 * sizeof(float));
    stream->zero(gradient.data(), gradient.bytes());
    comm.all_reduce(gradient.data(), gradient.data(), 17, DType::f32, Reduction::sum, stream.get());
    std::vector<std::string> expected;
    for (std::size_t l = 1; l < shard.halos.size(); ++l) {
      for (const std::int64_t images : {width, std::int64_t{8}}) {
        test::add_exchange(expected, shard.halos[l].sends, shard.halos[l].receives, images);
      }
    }
    for (std::size_t l = shared.layers.size() - 1; l > 0; --l) {
      for (const std::int64_t images : {width, std::int64_t{8}}) {
        test::add_exchange(expected, shard.halos[l].receives, shard.halos[l].sends, images);
      }
    }
    expected.insert(expected.end(), {"start", "all_reduce 68", "end"});
    auto calls = test::nccl_calls(comm.rank());
    calls.erase(calls.begin(), calls.begin() + before);
    EXPECT_EQ(calls, expected) << "rank " << comm.rank();
  });
  EXPECT_EQ(test::aborted_nccl_groups(), 0);
}

TEST_F(NcclTraining, RowsAndImages) {
  TrainSpec spec = short_spec();
  spec.model_ranks = 2;
  for (const int ranks : {4, 6, 8}) expect_same_bits(spec, ranks);
}

}  // namespace
}  // namespace spdnn
