// Training over NCCL as a fake has it: every call of a step's forward, backward and gradient
// exchange fits those of the other ranks, and the results are the bits of ranks that share memory.
#include <gtest/gtest.h>

#include <algorithm>

#include "support/fake_nccl.hpp"
#include "train/images.hpp"

namespace spdnn {
namespace {

TrainResult run(const TrainSpec& spec, int ranks, bool nccl) {
  TrainHooks hooks;
  if (nccl) {
    hooks.run_ranks = [&](const std::function<void(Communicator&)>& body) {
      test::run_nccl_ranks(ranks, body);
    };
  }
  return train_network(spec, test::made_up_images(300, 1), test::made_up_images(50, 2),
                       test::cpu_ranks(ranks), hooks);
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
  for (int rank = 0; rank < GetParam(); ++rank) spec.row_shares.push_back(1.0 + rank % 3);
  if (GetParam() > 2) spec.row_shares[1] = 0.0;
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

TEST_F(NcclTraining, RowsAndImages) {
  TrainSpec spec = short_spec();
  spec.model_ranks = 2;
  for (const int ranks : {4, 6, 8}) expect_same_bits(spec, ranks);
}

}  // namespace
}  // namespace spdnn
