// Losses, norms and optimisers' steps of training on CUDA devices, or where tests are built for the
// SIMT layer, on that: as the reference has them.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "optimizer.hpp"
#include "train/on_gpu.hpp"

namespace spdnn {
namespace {

using test::cuda_kernels;
using test::DeviceArray;
using test::on_each_gpu;
using test::OwnedPanels;
using test::with;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr Epilogue kIdentity = {-kInfinity, kInfinity};
constexpr std::int64_t kWidth = test::kGpuWidth;

template <class T>
class CudaTrain : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(CudaTrain, Types);

TYPED_TEST(CudaTrain, OptimisersAgreeWithTheReference) {
  using T = TypeParam;
  on_each_gpu([](Device& device, Stream& stream) {
    const std::unique_ptr<Device> cpu = open_device({});
    const auto cpu_stream = cpu->make_stream();
    constexpr std::int64_t kCount = 1013;
    constexpr double squares = 4.0;  // clipped at 1: half of the gradient
    const DeviceArray<double> squares_there({squares}, device, stream);
    for (const OptimizerKind kind :
         {OptimizerKind::sgd, OptimizerKind::momentum, OptimizerKind::nesterov, OptimizerKind::adam,
          OptimizerKind::adamw}) {
      std::mt19937_64 random(3);
      std::vector<T> p = test::random_values<T>(kCount, random);
      std::vector<T> m(p.size());
      std::vector<T> v(p.size());
      const DeviceArray<T> p_there(p, device, stream);
      const DeviceArray<T> m_there(m, device, stream);
      const DeviceArray<T> v_there(v, device, stream);
      for (int step = 1; step <= 3; ++step) {
        const std::vector<T> g = test::random_values<T>(kCount, random);
        const DeviceArray<T> g_there(g, device, stream);
        const auto t = static_cast<T>(step);
        UpdateArgs<T> args{kind,
                           kCount,
                           p.data(),
                           g.data(),
                           m.data(),
                           v.data(),
                           T(0.1),
                           T(0.9),
                           T(0.9),
                           T(0.999),
                           T(1e-8),
                           T(0.01),
                           T(1) - std::pow(T(0.9), t),
                           T(1) - std::pow(T(0.999), t),
                           &squares,
                           1.0};
        train_kernels<T>().back().update(args, *cpu_stream);
        args.parameters = p_there.data();
        args.gradient = g_there.data();
        args.first = m_there.data();
        args.second = v_there.data();
        args.squares = squares_there.data();
        cuda_kernels<T>()->update(args, stream);
        stream.synchronize();
      }
      const std::vector<T> got = p_there.read();
      const double tolerance = 64.0 * static_cast<double>(std::numeric_limits<T>::epsilon());
      for (std::size_t i = 0; i < p.size(); ++i) {
        ASSERT_NEAR(got[i], p[i], tolerance * (1.0 + std::abs(static_cast<double>(p[i]))))
            << "optimiser " << static_cast<int>(kind) << " element " << i;
      }
    }
  });
}

TYPED_TEST(CudaTrain, NormsAreSumsOfAllElements) {
  using T = TypeParam;
  on_each_gpu([](Device& device, Stream& stream) {
    std::mt19937_64 random(5);
    for (const std::int64_t count : {0, 1, 255, 256, 257, 5003, 70'001}) {
      const std::vector<T> x = test::random_values<T>(count, random);
      double exact = 0.0;
      for (const T value : x) exact += static_cast<double>(value) * static_cast<double>(value);
      const DeviceArray<T> there(x, device, stream);
      const DeviceArray<double> result(std::vector<double>(kSquaresRoom, -1.0), device, stream);
      cuda_kernels<T>()->sum_of_squares(there.data(), count, result.data(), stream);
      EXPECT_NEAR(result.read()[0], exact, 1e-12 * exact) << count;
    }
  });
}

/// Work that waits for the host can't be kept.
TEST(CudaTrainStep, ClippingWaitsForNoHost) {
  on_each_gpu([](Device& device, Stream& stream) {
    std::mt19937_64 random(17);
    TrainSpec spec;
    spec.optimizer.kind = OptimizerKind::sgd;
    spec.optimizer.rate = 1.0;
    spec.optimizer.clip_norm = 0.5;
    train::Network<float> network({train::linear_layer(train::Pattern::dense(50, 40), kIdentity)},
                                  *cuda_kernels<float>(), device, stream);
    train::Optimizer optimizer(spec, network, 1);
    const std::int64_t count = network.parameter_count();
    const std::vector<float> gradient = test::random_values<float>(count, random);
    double squares = 0.0;
    for (const float g : gradient) squares += static_cast<double>(g) * static_cast<double>(g);
    const auto bytes = static_cast<std::size_t>(count) * sizeof(float);
    stream.zero(network.parameters(), bytes);
    stream.copy(network.gradient(), gradient.data(), bytes);
    const std::unique_ptr<Recording> kept =
        stream.keep([&] { static_cast<void>(optimizer.step()); });
    ASSERT_NE(kept, nullptr);
    kept->replay();
    std::vector<float> got(gradient.size());
    stream.copy(got.data(), network.parameters(), bytes);
    stream.synchronize();
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], -0.5 / std::sqrt(squares) * static_cast<double>(gradient[i]), 1e-7) << i;
    }
  });
}

template <class T>
class CudaLoss : public testing::Test {};
TYPED_TEST_SUITE(CudaLoss, test::StoredTypes);

constexpr std::int64_t kOutputs = 7;

/// Outputs of images as a device stores them; of some of them the largest come twice.
template <class T>
struct LossProblem {
  LossProblem(Loss loss, std::int64_t batch, std::mt19937_64& random)
      : kind(loss), stored(kOutputs, batch, kWidth), y(kOutputs, batch, kWidth) {
    test::fill_random(stored, T{5}, random);
    for (std::int64_t c = 0; c < kOutputs && kind == Loss::cross_entropy; ++c) {
      T& last = stored.view.at(c, batch - 1);
      last = static_cast<T>(Wide<T>(last) * 1000);  // overflows the plain exponential
    }
    for (std::int64_t i = 0; i < batch; i += 3) {
      stored.view.at(2, i) = stored.view.at(5, i) = static_cast<T>(Wide<T>(6));
    }
    for (std::size_t i = 0; i < y.data.size(); ++i) y.data[i] = Wide<T>(stored.data[i]);
    for (std::int64_t i = 0; i < batch; ++i) {
      labels.push_back(static_cast<std::int32_t>(random() % kOutputs));
    }
  }
  Loss kind;
  Epilogue activation = {-1.0F, kInfinity};
  OwnedPanels<T> stored;
  OwnedPanels<double> y;
  std::vector<std::int32_t> labels;
};

/// A loss, its gradient by all outputs, and predictions.
struct FoundLoss {
  double sum = 0.0;
  std::vector<double> dz;  ///< [output][image]
  std::vector<std::int32_t> predictions;
};

template <class T>
FoundLoss reference_loss(const LossProblem<T>& problem) {
  const std::unique_ptr<Device> cpu = open_device({});
  const auto stream = cpu->make_stream();
  const std::int64_t batch = problem.y.view.batch;
  FoundLoss found;
  found.predictions.resize(problem.labels.size());
  OwnedPanels<double> dz(kOutputs, batch, kWidth);
  OwnedPanels<double> part(LossPart::words, batch, kWidth);
  const LossArgs<double> args{.loss = problem.kind,
                              .activation = problem.activation,
                              .y = problem.y.view,
                              .part = part.view,
                              .parts = part.view,
                              .outputs = kOutputs,
                              .labels = problem.labels.data(),
                              .scale = 0.5,
                              .dz = dz.view,
                              .loss_sum = &found.sum,
                              .predictions = found.predictions.data()};
  const TrainKernels<double>& kernels = train_kernels<double>().back();
  kernels.loss_part(args, *stream);
  kernels.loss(args, *stream);
  for (std::int64_t c = 0; c < kOutputs; ++c) {
    for (std::int64_t i = 0; i < batch; ++i) found.dz.push_back(dz.view.at(c, i));
  }
  return found;
}

/// A rank with some of the outputs, on a device.
template <class T>
class LossRank {
 public:
  using W = Wide<T>;
  LossRank(const LossProblem<T>& problem, const std::vector<std::uint32_t>& outputs, Device& device,
           Stream& stream)
      : problem_(problem),
        outputs_(outputs),
        stream_(stream),
        device_(device),
        y_(std::ssize(outputs), problem.y.view.batch, kWidth),
        part_(LossPart::words, problem.y.view.batch, kWidth),
        y_there_(own_outputs(), device, stream),
        dz_there_(std::vector<T>(y_.data.size(), T{9}), device, stream),
        part_there_(part_.data, device, stream),
        numbers_(outputs, device, stream),
        labels_(problem.labels, device, stream),
        scale_({2.0F}, device, stream),
        predictions_(std::vector<std::int32_t>(problem.labels.size(), -1), device, stream),
        sum_({-1.0}, device, stream) {
    args_.loss = problem.kind;
    args_.activation = problem.activation;
    args_.y = with<const T>(y_.view, y_there_.data());
    args_.part = with(part_.view, part_there_.data());
    args_.outputs = kOutputs;
    args_.numbers = std::ssize(outputs) == kOutputs ? nullptr : numbers_.data();
    args_.labels = labels_.data();
    args_.scale = W(0.25);
    args_.dz = with(y_.view, dz_there_.data());
    args_.loss_sum = sum_.data();
    args_.adds_up = true;
    args_.predictions = predictions_.data();
    args_.loss_scale = scale_.data();  // together 0.5
  }

  /// Writes this rank's words from feature `first` of `parts`.
  void tell(const Panels<W>& parts, std::int64_t first) {
    cuda_kernels<T>()->loss_part(args_, stream_);
    part_.data = part_there_.read();
    const Panels<W> own = with<W>(part_.view, part_.data.data());
    for (std::int64_t word = 0; word < LossPart::words; ++word) {
      for (std::int64_t i = 0; i < own.batch; ++i) parts.at(first + word, i) = own.at(word, i);
    }
  }

  /// What it finds once it knows what all say; of the gradient its own outputs'.
  void find(const OwnedPanels<W>& parts, FoundLoss& found) {
    const DeviceArray<W> there(parts.data, device_, stream_);
    args_.parts = with<const W>(parts.view, there.data());
    cuda_kernels<T>()->loss(args_, stream_);
    std::vector<T> dz = dz_there_.read();
    const Panels<T> gradient = with<T>(y_.view, dz.data());
    const std::int64_t batch = gradient.batch;
    for (std::int64_t c = 0; c < gradient.features; ++c) {
      for (std::int64_t i = 0; i < batch; ++i) {
        found.dz[outputs_[c] * batch + i] = Wide<T>(gradient.at(c, i));
      }
      for (std::int64_t i = batch; i < gradient.count() * kWidth; ++i) {
        EXPECT_EQ(Wide<T>(gradient.at(c, i)), 0) << "lane " << i;
      }
    }
    found.sum = sum_.read()[0] + 1.0;  // was added to −1
    found.predictions = predictions_.read();
  }

 private:
  const std::vector<T>& own_outputs() {
    for (std::int64_t c = 0; c < y_.view.features; ++c) {
      for (std::int64_t i = 0; i < y_.view.batch; ++i) {
        y_.view.at(c, i) = problem_.stored.view.at(outputs_[c], i);
      }
    }
    return y_.data;
  }

  const LossProblem<T>& problem_;
  const std::vector<std::uint32_t>& outputs_;
  Stream& stream_;
  Device& device_;
  OwnedPanels<T> y_;
  OwnedPanels<W> part_;
  DeviceArray<T> y_there_, dz_there_;
  DeviceArray<W> part_there_;
  DeviceArray<std::uint32_t> numbers_;
  DeviceArray<std::int32_t> labels_;
  DeviceArray<float> scale_;
  DeviceArray<std::int32_t> predictions_;
  DeviceArray<double> sum_;
  LossArgs<T> args_;
};

/// What ranks with these outputs find together; all find the same sum.
template <class T>
FoundLoss split_loss(const LossProblem<T>& problem,
                     const std::vector<std::vector<std::uint32_t>>& outputs, Device& device,
                     Stream& stream) {
  std::vector<std::unique_ptr<LossRank<T>>> ranks;
  OwnedPanels<Wide<T>> parts(std::ssize(outputs) * LossPart::words, problem.y.view.batch, kWidth);
  for (const std::vector<std::uint32_t>& own : outputs) {
    ranks.push_back(std::make_unique<LossRank<T>>(problem, own, device, stream));
    ranks.back()->tell(parts.view, (std::ssize(ranks) - 1) * LossPart::words);
  }
  FoundLoss found;
  found.dz.resize(static_cast<std::size_t>(kOutputs * problem.y.view.batch));
  for (const auto& rank : ranks) rank->find(parts, found);
  return found;
}

TYPED_TEST(CudaLoss, AgreesWithTheReferenceHoweverOutputsAreDivided) {
  using T = TypeParam;
  using Numbers = std::vector<std::uint32_t>;
  on_each_gpu([](Device& device, Stream& stream) {
    std::mt19937_64 random(11);
    for (const std::int64_t batch : {1, 63, 64, 65, 300}) {
      for (const Loss kind : {Loss::cross_entropy, Loss::mean_squared_error}) {
        const LossProblem<T> problem(kind, batch, random);
        const FoundLoss reference = reference_loss(problem);
        const double tolerance =
            100.0 * static_cast<double>(std::numeric_limits<Wide<T>>::epsilon());
        for (const std::vector<Numbers>& ranks : {std::vector<Numbers>{{0, 1, 2, 3, 4, 5, 6}},
                                                  {{5, 6, 2}, {3, 0}, {}, {1, 4}},
                                                  {{0, 5}, {6, 4, 3, 2, 1}}}) {
          SCOPED_TRACE(testing::Message() << ranks.size() << " ranks, batch " << batch);
          const FoundLoss found = split_loss(problem, ranks, device, stream);
          EXPECT_NEAR(found.sum, reference.sum, tolerance * (1.0 + std::abs(reference.sum)));
          EXPECT_EQ(found.predictions, reference.predictions);
          for (std::size_t i = 0; i < found.dz.size(); ++i) {
            const double expected = reference.dz[i];
            ASSERT_NEAR(found.dz[i], expected,
                        tolerance + test::storing_error<T>(std::abs(expected) + tolerance))
                << "element " << i;
          }
        }
      }
    }
  });
}

/// A gradient that overflowed halves the scale and moves nothing; good ones in a row double it.
TEST(CudaTrainStep, LossScalesFollowWhatOverflows) {
  on_each_gpu([](Device& device, Stream& stream) {
    const TrainKernels<float>& kernels = *cuda_kernels<float>();
    const DeviceArray<LossScale> state({{.scale = 4.0F}}, device, stream);
    const DeviceArray<float> p({1.0F}, device, stream);
    const DeviceArray<float> g({8.0F}, device, stream);
    const DeviceArray<float> m({0.0F}, device, stream);
    const DeviceArray<float> v({0.0F}, device, stream);
    const auto judge = [&](double squares_of_gradient) {
      const DeviceArray<double> squares({squares_of_gradient}, device, stream);
      kernels.judge({state.data(), squares.data(), 2, 0.5, 0.75}, stream);
      UpdateArgs<float> update;
      update.kind = OptimizerKind::adam;
      update.count = 1;
      update.parameters = p.data();
      update.gradient = g.data();
      update.first = m.data();
      update.second = v.data();
      update.rate = 1.0F;
      update.beta1 = 0.5F;
      update.beta2 = 0.75F;
      update.squares = squares.data();
      update.clip_norm = 1.0;
      update.loss_scale = state.data();
      kernels.update(update, stream);
      return state.read()[0];
    };
    for (const double bad :
         {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
      const float before = state.read()[0].scale;
      const LossScale after = judge(bad);
      EXPECT_EQ(after.scale, before / 2.0F);
      EXPECT_EQ(after.taken, 0);
      EXPECT_EQ(p.read()[0], 1.0F);
      EXPECT_EQ(m.read()[0], 0.0F);
    }
    EXPECT_EQ(judge(std::numeric_limits<double>::infinity()).scale, 1.0F);  // and no less
    // Gradients of 8 in a scale of 1, clipped at 1: Adam's first step is its rate, whatever failed
    // before.
    EXPECT_EQ(judge(64.0).scale, 1.0F);
    EXPECT_EQ(m.read()[0], 0.5F);
    EXPECT_NEAR(p.read()[0], 0.0F, 1e-6F);
    const LossScale second = judge(64.0);
    EXPECT_EQ(second.scale, 2.0F);
    EXPECT_EQ(second.taken, 2);
    EXPECT_EQ(second.unscale, 1.0);
    const LossScale third = judge(64.0);
    EXPECT_EQ(third.unscale, 0.5);
    EXPECT_EQ(third.scale, 2.0F);
    EXPECT_EQ(judge(64.0).scale, 4.0F);
  });
}

}  // namespace
}  // namespace spdnn
