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

/// Outputs of a thousand overflow the plain exponential; the last image's are among them.
TYPED_TEST(CudaLoss, AgreesWithTheReference) {
  using T = TypeParam;
  on_each_gpu([](Device& device, Stream& stream) {
    const std::unique_ptr<Device> cpu = open_device({});
    const auto cpu_stream = cpu->make_stream();
    std::mt19937_64 random(11);
    for (const std::int64_t batch : {1, 63, 64, 65, 300}) {
      for (const Loss kind : {Loss::cross_entropy, Loss::mean_squared_error}) {
        OwnedPanels<T> stored(7, batch, kWidth);
        OwnedPanels<double> y(7, batch, kWidth);
        test::fill_random(stored, T{5}, random);
        for (std::int64_t c = 0; c < 7 && kind == Loss::cross_entropy; ++c) {
          T& last = stored.view.at(c, batch - 1);
          last = static_cast<T>(Wide<T>(last) * 1000);
        }
        for (std::size_t i = 0; i < y.data.size(); ++i) y.data[i] = Wide<T>(stored.data[i]);
        std::vector<std::int32_t> labels;
        for (std::int64_t i = 0; i < batch; ++i) {
          labels.push_back(static_cast<std::int32_t>(random() % 7));
        }
        OwnedPanels<double> dz(7, batch, kWidth);
        std::vector<std::int32_t> predictions(labels.size());
        double sum = 0.0;
        const Epilogue h = {-1.0F, kInfinity};
        const LossArgs<double> args{kind, h,       y.view, labels.data(),
                                    0.5,  dz.view, &sum,   predictions.data()};
        train_kernels<double>().back().loss(args, *cpu_stream);
        const DeviceArray<T> y_there(stored.data, device, stream);
        const DeviceArray<T> dz_there(std::vector<T>(dz.data.size(), T{9}), device, stream);
        const DeviceArray<std::int32_t> labels_there(labels, device, stream);
        const DeviceArray<std::int32_t> found(std::vector<std::int32_t>(labels.size(), -1), device,
                                              stream);
        const DeviceArray<double> loss({-1.0}, device, stream);
        const DeviceArray<float> scale({2.0F}, device, stream);
        LossArgs<T> there;
        there.loss = kind;
        there.activation = h;
        there.y = with<const T>(stored.view, y_there.data());
        there.labels = labels_there.data();
        there.scale = Wide<T>(0.25);
        there.dz = with(stored.view, dz_there.data());
        there.loss_sum = loss.data();
        there.predictions = found.data();
        there.loss_scale = scale.data();  // together 0.5
        cuda_kernels<T>()->loss(there, stream);
        const double tolerance =
            100.0 * static_cast<double>(std::numeric_limits<Wide<T>>::epsilon());
        EXPECT_NEAR(loss.read()[0], sum, tolerance * std::abs(sum));
        EXPECT_EQ(found.read(), predictions);
        const std::vector<T> got = dz_there.read();
        for (std::size_t i = 0; i < got.size(); ++i) {
          ASSERT_NEAR(Wide<T>(got[i]), dz.data[i],
                      tolerance + test::storing_error<T>(std::abs(dz.data[i]) + tolerance))
              << "element " << i << ", batch " << batch;
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
