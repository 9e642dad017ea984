// The kernels of training on CUDA devices, or where tests are built for the SIMT layer, on that:
// held against the reference within twice the rounding bound, and against differences of the loss.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "optimizer.hpp"
#include "support/devices.hpp"
#include "train/problems.hpp"

namespace spdnn {
namespace {

using test::DeviceArray;
using test::OwnedPanels;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr Epilogue kIdentity = {-kInfinity, kInfinity};
constexpr std::int64_t kWidth = 64;

struct Case {
  std::int64_t rows, cols;
  double density;  ///< 1: a dense layer
  std::int64_t batch;
  Epilogue activation;
};

std::string name_of(const Case& c) {
  return fmt::format("{}x{} density {} batch {} h [{}, {}]", c.rows, c.cols, c.density, c.batch,
                     c.activation.lower, c.activation.upper);
}

std::vector<Case> cases() {
  const Epilogue relu = {0.0F, kInfinity};
  const Epilogue clipped = {0.0F, 0.75F};
  std::vector<Case> all;
  for (const double density : {0.2, 1.0}) {
    for (const std::int64_t batch : {0, 1, 31, 32, 63, 64, 65, 130}) {
      all.push_back({17, 23, density, batch, relu});
    }
    for (const std::int64_t rows : {1, 3, 8, 31, 33, 47}) {
      all.push_back({rows, 29, density, 70, kIdentity});
      all.push_back({29, rows, density, 70, clipped});
    }
  }
  all.push_back({90, 61, 0.05, 130, clipped});
  all.push_back({3, 300, 0.5, 40, relu});  // several rounds of a block's warps
  all.push_back({11, 300, 1.0, 70, relu});
  all.push_back({300, 11, 1.0, 40, clipped});
  all.push_back({20, 25, 0.0, 40, relu});  // no connection at all
  return all;
}

/// The bound γ(n) on the relative error of n operations.
template <class T>
double gamma(std::int64_t n) {
  const double nu = static_cast<double>(n) * std::numeric_limits<T>::epsilon() / 2.0;
  return nu / (1.0 - nu);
}

/// A layer with its inputs and a gradient.
template <class T>
struct Problem {
  train::Pattern pattern;
  std::vector<T> values, bias;
  OwnedPanels<T> x, dz;
  Epilogue activation;

  Problem(const Case& c, std::mt19937_64& random)
      : pattern(test::layer_pattern(c.rows, c.cols, c.density, random)),
        values(test::random_values<T>(pattern.nnz(), random)),
        bias(test::random_values<T>(c.rows, random)),
        x(c.cols, c.batch, kWidth),
        dz(c.rows, c.batch, kWidth),
        activation(c.activation) {
    test::fill_random(x, T{3}, random);
    test::fill_random(dz, T{0}, random);
  }
  [[nodiscard]] LinearView<T> layer() const { return {pattern.view(), values.data(), bias.data()}; }
};

template <class T>
struct Outputs {
  std::vector<T> y, dx, dvalues, dbias;
  friend bool operator==(const Outputs&, const Outputs&) = default;
};

template <class T>
const TrainKernels<T>& reference() {
  return train_kernels<T>().back();
}

template <class T>
const TrainKernels<T>* cuda_kernels() {
  for (const TrainKernels<T>& kernels : train_kernels<T>()) {
    if (kernels.device == DeviceKind::cuda) return &kernels;
  }
  return nullptr;
}

template <class T>
Panels<T> with(const Panels<T>& shape, T* data) {
  return {data, shape.features, shape.batch, shape.width, nullptr};
}

/// What the reference makes of a problem; of absolute values and the identity, magnitudes.
template <class T>
Outputs<T> expected(const Problem<T>& p, bool magnitudes) {
  const std::unique_ptr<Device> cpu = open_device({});
  const auto stream = cpu->make_stream();
  const LinearKernels<T>& kernels = reference<T>().sparse;
  const auto taken = [&](std::vector<T> values) {
    for (T& value : values) value = magnitudes ? std::abs(value) : value;
    return values;
  };
  std::vector<T> values = taken(p.values);
  std::vector<T> bias = taken(p.bias);
  std::vector<T> x = taken(p.x.data);
  std::vector<T> dz = taken(p.dz.data);
  const LinearView<T> layer = {p.pattern.view(), values.data(), bias.data()};
  const Epilogue h = magnitudes ? kIdentity : p.activation;
  Outputs<T> out{dz, x, values, bias};
  const Panels<const T> in = with(p.x.view, x.data());
  const Panels<const T> gradient = with(p.dz.view, dz.data());
  kernels.forward({layer, h, in, with(p.dz.view, out.y.data()), {}}, *stream);
  kernels.backward_data({layer, gradient, h, in, with(p.x.view, out.dx.data()), nullptr, {}},
                        *stream);
  kernels.backward_weights({layer.pattern, gradient, in, out.dvalues.data(), out.dbias.data(), {}},
                           *stream);
  return out;
}

/// A problem on a device.
template <class T>
class OnDevice {
 public:
  OnDevice(const Problem<T>& p, Device& device, Stream& stream)
      : problem_(p),
        stream_(stream),
        values_(p.values, device, stream),
        bias_(p.bias, device, stream),
        x_(p.x.data, device, stream),
        dz_(p.dz.data, device, stream),
        y_(p.dz.data, device, stream),
        dx_(p.x.data, device, stream),
        dvalues_(p.values, device, stream),
        dbias_(p.bias, device, stream),
        workspace_(p.values, device, stream) {
    view_ = p.pattern.view();
    if (p.pattern.is_dense()) return;
    const auto nnz = static_cast<std::size_t>(view_.nnz);
    const auto upload = [&](auto*& at, std::size_t count, auto& owners) {
      using U = std::remove_cv_t<std::remove_pointer_t<std::remove_reference_t<decltype(at)>>>;
      owners.emplace_back(std::vector<U>(at, at + count), device, stream);
      at = owners.back().data();
    };
    upload(view_.row_offsets, static_cast<std::size_t>(view_.rows + 1), offsets_);
    upload(view_.col_offsets, static_cast<std::size_t>(view_.cols + 1), offsets_);
    upload(view_.col_indices, nnz, indices_);
    upload(view_.row_indices, nnz, indices_);
    upload(view_.entries, nnz, indices_);
  }

  Outputs<T> run(const TrainKernels<T>& table) {
    const LinearKernels<T>& kernels = problem_.pattern.is_dense() ? table.dense : table.sparse;
    const LinearView<T> layer = {view_, values_.data(), bias_.data()};
    const Panels<const T> x = with(problem_.x.view, x_.data());
    const Panels<const T> dz = with(problem_.dz.view, dz_.data());
    kernels.forward({layer, problem_.activation, x, with(problem_.dz.view, y_.data()), {}},
                    stream_);
    kernels.backward_data({layer,
                           dz,
                           problem_.activation,
                           x,
                           with(problem_.x.view, dx_.data()),
                           workspace_.data(),
                           {}},
                          stream_);
    kernels.backward_weights({view_, dz, x, dvalues_.data(), dbias_.data(), {}}, stream_);
    return {y_.read(), dx_.read(), dvalues_.read(), dbias_.read()};
  }

 private:
  const Problem<T>& problem_;
  Stream& stream_;
  PatternView view_;
  DeviceArray<T> values_, bias_, x_, dz_, y_, dx_, dvalues_, dbias_, workspace_;
  std::vector<DeviceArray<std::int64_t>> offsets_;
  std::vector<DeviceArray<std::uint32_t>> indices_;
};

/// Both sides are sums of at most `terms` products, rounded differently.
template <class T>
void expect_near(const std::vector<T>& got, const std::vector<T>& right,
                 const std::vector<T>& magnitude, std::int64_t terms, const char* what) {
  ASSERT_EQ(got.size(), right.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_LE(std::abs(static_cast<double>(got[i]) - static_cast<double>(right[i])),
              2.0 * gamma<T>(terms + 4) * static_cast<double>(magnitude[i]))
        << what << " " << i;
  }
}

/// Calls `body(device, stream)` for each device of the kind `cuda` there is.
template <class Body>
void on_each_gpu(const Body& body) {
  bool any = false;
  for (const DeviceSpec& spec : test::tested_devices()) {
    if (spec.kind != DeviceKind::cuda) continue;
    const std::unique_ptr<Device> device = open_device(spec);
    const std::unique_ptr<Stream> stream = device->make_stream();
    body(*device, *stream);
    any = true;
  }
  if (!any) GTEST_SKIP() << "no CUDA device";
}

template <class T>
class CudaTrain : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(CudaTrain, Types);

TYPED_TEST(CudaTrain, LayersAgreeWithTheReferenceAndRepeatTheirBits) {
  using T = TypeParam;
  ASSERT_GE(cases().size(), 40U);
  on_each_gpu([](Device& device, Stream& stream) {
    ASSERT_NE(cuda_kernels<T>(), nullptr);
    std::mt19937_64 random(7);
    for (const Case& c : cases()) {
      SCOPED_TRACE(name_of(c));
      const Problem<T> problem(c, random);
      OnDevice<T> there(problem, device, stream);
      const Outputs<T> got = there.run(*cuda_kernels<T>());
      const Outputs<T> right = expected(problem, false);
      const Outputs<T> size = expected(problem, true);
      ASSERT_NO_FATAL_FAILURE(expect_near(got.y, right.y, size.y, c.cols, "y"));
      ASSERT_NO_FATAL_FAILURE(expect_near(got.dx, right.dx, size.dx, c.rows, "dx"));
      ASSERT_NO_FATAL_FAILURE(
          expect_near(got.dvalues, right.dvalues, size.dvalues, c.batch, "dvalues"));
      ASSERT_NO_FATAL_FAILURE(expect_near(got.dbias, right.dbias, size.dbias, c.batch, "dbias"));
      ASSERT_TRUE(got == there.run(*cuda_kernels<T>())) << "two runs differ";
    }
  });
}

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
        reference<T>().update(args, *cpu_stream);
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

/// Outputs of a thousand overflow the plain exponential; the last image's are among them.
TYPED_TEST(CudaTrain, LossesAgreeWithTheReference) {
  using T = TypeParam;
  on_each_gpu([](Device& device, Stream& stream) {
    const std::unique_ptr<Device> cpu = open_device({});
    const auto cpu_stream = cpu->make_stream();
    std::mt19937_64 random(11);
    for (const std::int64_t batch : {1, 63, 64, 65, 300}) {
      for (const Loss kind : {Loss::cross_entropy, Loss::mean_squared_error}) {
        OwnedPanels<T> y(7, batch, kWidth);
        test::fill_random(y, T{5}, random);
        if (kind == Loss::cross_entropy) {
          for (std::int64_t c = 0; c < 7; ++c) y.view.at(c, batch - 1) *= T{1000};
        }
        std::vector<std::int32_t> labels;
        for (std::int64_t i = 0; i < batch; ++i) {
          labels.push_back(static_cast<std::int32_t>(random() % 7));
        }
        OwnedPanels<T> dz(7, batch, kWidth);
        std::vector<std::int32_t> predictions(labels.size());
        double sum = 0.0;
        const Epilogue h = {-1.0F, kInfinity};
        LossArgs<T> args{kind,    h,       y.view, labels.data(),
                         T(0.25), dz.view, &sum,   predictions.data()};
        reference<T>().loss(args, *cpu_stream);
        const DeviceArray<T> y_there(y.data, device, stream);
        const DeviceArray<T> dz_there(std::vector<T>(dz.data.size(), T{9}), device, stream);
        const DeviceArray<std::int32_t> labels_there(labels, device, stream);
        const DeviceArray<std::int32_t> found(std::vector<std::int32_t>(labels.size(), -1), device,
                                              stream);
        const DeviceArray<double> loss({-1.0}, device, stream);
        args.y = with<const T>(y.view, y_there.data());
        args.dz = with(dz.view, dz_there.data());
        args.labels = labels_there.data();
        args.predictions = found.data();
        args.loss_sum = loss.data();
        cuda_kernels<T>()->loss(args, stream);
        const double tolerance = 100.0 * static_cast<double>(std::numeric_limits<T>::epsilon());
        EXPECT_NEAR(loss.read()[0], sum, tolerance * std::abs(sum));
        EXPECT_EQ(found.read(), predictions);
        const std::vector<T> got = dz_there.read();
        for (std::size_t i = 0; i < got.size(); ++i) {
          ASSERT_NEAR(got[i], dz.data[i], tolerance) << "element " << i << ", batch " << batch;
        }
      }
    }
  });
}

/// The gradient of Σ w · h(W·x + b), w fixed, by values and inputs, against central differences.
TEST(CudaTrainGradient, AgreesWithDifferencesInDouble) {
  on_each_gpu([](Device& device, Stream& stream) {
    std::mt19937_64 random(13);
    for (const double density : {0.3, 1.0}) {
      // The identity, above as in dZ's definition, and below, where it lets all of x pass.
      Problem<double> problem({9, 13, density, 70, kIdentity}, random);
      const std::vector<double> w = problem.dz.data;
      const auto objective = [&] {
        const std::vector<double> y =
            OnDevice<double>(problem, device, stream).run(*cuda_kernels<double>()).y;
        double sum = 0.0;
        for (std::size_t i = 0; i < y.size(); ++i) sum += w[i] * y[i];
        return sum;
      };
      const Outputs<double> analytic =
          OnDevice<double>(problem, device, stream).run(*cuda_kernels<double>());
      const auto check = [&](std::vector<double>& at, const std::vector<double>& gradient) {
        for (int i = 0; i < 6; ++i) {
          const std::size_t k = random() % at.size();
          const double before = at[k];
          constexpr double kStep = 1e-4;
          at[k] = before + kStep;
          const double up = objective();
          at[k] = before - kStep;
          const double down = objective();
          at[k] = before;
          EXPECT_NEAR((up - down) / (2.0 * kStep), gradient[k],
                      1e-6 * std::max(1.0, std::abs(gradient[k])));
        }
      };
      check(problem.values, analytic.dvalues);
      check(problem.bias, analytic.dbias);
      check(problem.x.data, analytic.dx);
    }
  });
}

}  // namespace
}  // namespace spdnn
