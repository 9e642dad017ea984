// Whole training runs on made-up images: that they learn, and give the same bits again.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "optimizer.hpp"
#include "train/images.hpp"

namespace spdnn {
namespace {

using test::cpu_ranks;
using test::made_up_images;
using test::parameters_of;
using test::small_spec;

TrainResult run(const TrainSpec& spec, const std::vector<DeviceSpec>& devices) {
  return train_network(spec, made_up_images(700, 1), made_up_images(300, 2), devices, {});
}

TEST(TrainLoop, EveryOptimiserLearns) {
  const std::pair<OptimizerKind, double> optimizers[] = {{OptimizerKind::sgd, 0.2},
                                                         {OptimizerKind::momentum, 0.03},
                                                         {OptimizerKind::nesterov, 0.03},
                                                         {OptimizerKind::adam, 0.005},
                                                         {OptimizerKind::adamw, 0.005}};
  for (const auto& [kind, rate] : optimizers) {
    TrainSpec spec = small_spec();
    spec.optimizer.kind = kind;
    spec.optimizer.rate = rate;
    spec.optimizer.weight_decay = 1e-4;
    spec.optimizer.clip_norm = 5.0;
    spec.schedule = {ScheduleKind::cosine, 0.5, 10, 0.1, 0.0};
    const TrainResult result = run(spec, cpu_ranks(1));
    EXPECT_GT(result.test.accuracy(), 0.95) << "optimiser " << static_cast<int>(kind);
    EXPECT_EQ(result.test.images, 300);
    std::int64_t counted = 0;
    for (const std::int64_t n : result.test.confusion) counted += n;
    EXPECT_EQ(counted, 300);
    EXPECT_LT(result.epochs.back().train.loss, result.epochs.front().train.loss);
  }
}

TEST(TrainLoop, SquaresAreLearnedToo) {
  TrainSpec spec = small_spec();
  spec.loss = Loss::mean_squared_error;
  EXPECT_GT(run(spec, cpu_ranks(1)).test.accuracy(), 0.9);
}

TEST(TrainLoop, ConvolutionsLearn) {
  const TrainSpec spec = test::convolutional_spec();
  EXPECT_GT(run(spec, cpu_ranks(1)).test.accuracy(), 0.95);
  TrainSpec rewired = spec;
  rewired.epochs = 2;
  rewired.rewire = {RewireMethod::rigl, 3, 0.3, 0.75};
  const TrainResult first = run(rewired, cpu_ranks(1, 2));
  const TrainResult second = run(rewired, cpu_ranks(1));
  EXPECT_EQ(parameters_of(first.model), parameters_of(second.model));
  EXPECT_GT(first.epochs.back().rewired, 0);
}

TEST(TrainLoop, EqualRunsGiveEqualBits) {
  TrainSpec spec = small_spec();
  spec.epochs = 2;
  for (const RewireMethod method : {RewireMethod::none, RewireMethod::set, RewireMethod::rigl}) {
    spec.rewire = {method, 3, 0.3, 0.75};
    for (const int ranks : {1, 3}) {
      const TrainResult first = run(spec, cpu_ranks(ranks));
      const TrainResult second = run(spec, cpu_ranks(ranks));
      EXPECT_EQ(parameters_of(first.model), parameters_of(second.model));
      EXPECT_EQ(first.epochs.back().train.loss, second.epochs.back().train.loss);
      EXPECT_EQ(first.epochs.back().rewired > 0, method != RewireMethod::none);
    }
  }
}

TEST(TrainLoop, ThreadsOfARankChangeNoBit) {
  TrainSpec spec = small_spec();
  spec.epochs = 2;
  EXPECT_EQ(parameters_of(run(spec, cpu_ranks(1, 1)).model),
            parameters_of(run(spec, cpu_ranks(1, 3)).model));
}

/// Gradients are summed over ranks in another order: equal up to rounding, for a few steps.
TEST(TrainLoop, RanksShareABatch) {
  TrainSpec spec = small_spec();
  spec.epochs = 1;
  spec.batch = 96;
  spec.optimizer.kind = OptimizerKind::sgd;
  spec.optimizer.rate = 0.05;
  const std::vector<float> one = parameters_of(run(spec, cpu_ranks(1)).model);
  const TrainResult shared = run(spec, cpu_ranks(3));
  const std::vector<float> three = parameters_of(shared.model);
  ASSERT_EQ(one.size(), three.size());
  for (std::size_t i = 0; i < one.size(); ++i) ASSERT_NEAR(one[i], three[i], 1e-5);
  EXPECT_EQ(shared.epochs.back().train.images, 700);
  for (const std::int64_t images : shared.rank_images) EXPECT_GT(images, 200);
}

TEST(TrainLoop, RewiringKeepsTheNumberOfConnections) {
  TrainSpec spec = small_spec();
  spec.rewire = {RewireMethod::rigl, 5, 0.3, 0.75};
  const TrainResult result = run(spec, cpu_ranks(2));
  EXPECT_GT(result.test.accuracy(), 0.95);
  EXPECT_EQ(result.layers[0].connections, std::llround(0.2 * 36 * 48));
  EXPECT_EQ(result.layers[1].connections, std::llround(0.2 * 48 * 48));
}

TEST(TrainLoop, StopsWhenNothingIsGained) {
  TrainSpec spec = small_spec();
  spec.epochs = 200;
  spec.validation = 100;
  spec.patience = 2;
  const TrainResult result = run(spec, cpu_ranks(1));
  EXPECT_TRUE(result.stopped_early);
  EXPECT_LT(result.epochs.size(), 200U);
  EXPECT_EQ(result.epochs.back().validation->images, 100);
  EXPECT_EQ(result.epochs.back().train.images, 600);
}

TEST(TrainLoop, DataThatDoNotFitAreNamed) {
  TrainSpec spec = small_spec();
  spec.layers.back().outputs = 3;
  EXPECT_THROW(static_cast<void>(run(spec, cpu_ranks(1))), InputError);
  spec = small_spec();
  spec.validation = 700;
  EXPECT_THROW(static_cast<void>(run(spec, cpu_ranks(1))), InputError);
}

TEST(TrainLoop, CancellingEndsARunOfManyRanks) {
  const std::atomic<bool> cancel{true};
  TrainHooks hooks;
  hooks.cancel = &cancel;
  EXPECT_THROW(static_cast<void>(
                   train_network(small_spec(), made_up_images(700, 1), {}, cpu_ranks(3), hooks)),
               CommError);
}

TEST(Schedule, RatesOverTime) {
  using train::rate_at;
  EXPECT_EQ(rate_at({}, 999, 10, 1000), 1.0);
  const ScheduleSpec step = {ScheduleKind::step, 0.0, 2, 0.5, 0.0};
  EXPECT_EQ(rate_at(step, 19, 10, 100), 1.0);
  EXPECT_EQ(rate_at(step, 20, 10, 100), 0.5);
  EXPECT_EQ(rate_at(step, 40, 10, 100), 0.25);
  const ScheduleSpec cosine = {ScheduleKind::cosine, 1.0, 10, 0.1, 0.2};
  EXPECT_NEAR(rate_at(cosine, 0, 10, 110), 0.1, 1e-12);
  EXPECT_NEAR(rate_at(cosine, 10, 10, 110), 1.0, 1e-12);
  EXPECT_NEAR(rate_at(cosine, 60, 10, 110), 0.6, 1e-12);
  EXPECT_NEAR(rate_at(cosine, 110, 10, 110), 0.2, 1e-12);
}

}  // namespace
}  // namespace spdnn
