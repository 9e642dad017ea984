// The kernels of training on CUDA devices, or where tests are built for the SIMT layer, on that:
// held against the reference within twice the rounding bound, and against differences of the loss.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

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

/// A layer with its inputs and a gradient.
template <class T>
struct Problem {
  train::Pattern pattern;
  std::vector<T> values;
  std::vector<Wide<T>> bias;
  OwnedPanels<T> x, dz;
  Epilogue activation;

  Problem(const Case& c, std::mt19937_64& random)
      : pattern(test::layer_pattern(c.rows, c.cols, c.density, random)),
        values(test::random_values<T>(pattern.nnz(), random)),
        bias(test::random_values<Wide<T>>(c.rows, random)),
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
  std::vector<T> y, dx;
  std::vector<Wide<T>> dvalues, dbias;
  std::vector<Wide<T>> dvalues_twice, dbias_twice;  ///< after the same was added to it
  friend bool operator==(const Outputs&, const Outputs&) = default;
};

/// What the reference makes of a problem in double; of absolute values and the identity,
/// magnitudes.
template <class T>
Outputs<double> expected(const Problem<T>& p, bool magnitudes) {
  const std::unique_ptr<Device> cpu = open_device({});
  const auto stream = cpu->make_stream();
  const LinearKernels<double>& kernels = train_kernels<double>().back().sparse;
  const auto taken = [&](const auto& stored) {
    std::vector<double> values;
    for (const Wide<T> value : stored) values.push_back(magnitudes ? std::abs(value) : value);
    return values;
  };
  const std::vector<double> values = taken(p.values);
  const std::vector<double> bias = taken(p.bias);
  std::vector<double> x = taken(p.x.data);
  std::vector<double> dz = taken(p.dz.data);
  const LinearView<double> layer = {p.pattern.view(), values.data(), bias.data()};
  const Epilogue h = magnitudes ? kIdentity : p.activation;
  Outputs<double> out{dz, x, values, bias, {}, {}};
  const Panels<const double> in = with<const double>(p.x.view, x.data());
  const Panels<const double> gradient = with<const double>(p.dz.view, dz.data());
  kernels.forward({layer, h, in, with(p.dz.view, out.y.data()), {}}, *stream);
  kernels.backward_data({layer, gradient, h, in, with(p.x.view, out.dx.data()), nullptr, {}},
                        *stream);
  const auto weights = [&](std::vector<double>& dvalues, std::vector<double>& dbias, bool adds_up) {
    kernels.backward_weights(
        {layer.pattern, gradient, in, {dvalues.data(), dbias.data(), adds_up}, {}}, *stream);
  };
  weights(out.dvalues, out.dbias, false);
  out.dvalues_twice = out.dvalues;
  out.dbias_twice = out.dbias;
  weights(out.dvalues_twice, out.dbias_twice, true);
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
        dvalues_(std::vector<Wide<T>>(p.values.size()), device, stream),
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
    const Panels<const T> x = with<const T>(problem_.x.view, x_.data());
    const Panels<const T> dz = with<const T>(problem_.dz.view, dz_.data());
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
    kernels.backward_weights({view_, dz, x, {dvalues_.data(), dbias_.data()}, {}}, stream_);
    Outputs<T> out{y_.read(), dx_.read(), dvalues_.read(), dbias_.read(), {}, {}};
    kernels.backward_weights({view_, dz, x, {dvalues_.data(), dbias_.data(), true}, {}}, stream_);
    out.dvalues_twice = dvalues_.read();
    out.dbias_twice = dbias_.read();
    return out;
  }

 private:
  const Problem<T>& problem_;
  Stream& stream_;
  PatternView view_;
  DeviceArray<T> values_;
  DeviceArray<Wide<T>> bias_;
  DeviceArray<T> x_, dz_, y_, dx_;
  DeviceArray<Wide<T>> dvalues_, dbias_;
  DeviceArray<T> workspace_;
  std::vector<DeviceArray<std::int64_t>> offsets_;
  std::vector<DeviceArray<std::uint32_t>> indices_;
};

/// Sums of at most `terms` products of numbers stored as T, stored as `Stored`.
template <class T, class Stored>
void expect_near(const std::vector<Stored>& got, const std::vector<double>& right,
                 const std::vector<double>& magnitude, std::int64_t terms, const char* what) {
  ASSERT_EQ(got.size(), right.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double summed = 2.0 * test::gamma<T>(terms + 4) * magnitude[i];  // both sides round
    ASSERT_LE(std::abs(static_cast<double>(Wide<T>(got[i])) - right[i]),
              summed + test::storing_error<Stored>(std::abs(right[i]) + summed))
        << what << " " << i;
  }
}

template <class T>
class CudaTrainLayers : public testing::Test {};
TYPED_TEST_SUITE(CudaTrainLayers, test::StoredTypes);

TYPED_TEST(CudaTrainLayers, AgreeWithTheReferenceAndRepeatTheirBits) {
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
      const Outputs<double> right = expected(problem, false);
      const Outputs<double> size = expected(problem, true);
      ASSERT_NO_FATAL_FAILURE(expect_near<T>(got.y, right.y, size.y, c.cols, "y"));
      ASSERT_NO_FATAL_FAILURE(expect_near<T>(got.dx, right.dx, size.dx, c.rows, "dx"));
      ASSERT_NO_FATAL_FAILURE(
          expect_near<T>(got.dvalues, right.dvalues, size.dvalues, c.batch, "dvalues"));
      ASSERT_NO_FATAL_FAILURE(expect_near<T>(got.dbias, right.dbias, size.dbias, c.batch, "dbias"));
      ASSERT_NO_FATAL_FAILURE(expect_near<T>(got.dvalues_twice, right.dvalues_twice,
                                             size.dvalues_twice, 2 * c.batch, "dvalues added up"));
      ASSERT_NO_FATAL_FAILURE(expect_near<T>(got.dbias_twice, right.dbias_twice, size.dbias_twice,
                                             2 * c.batch, "dbias added up"));
      ASSERT_TRUE(got == there.run(*cuda_kernels<T>())) << "two runs differ";
    }
  });
}

/// Outputs at a bound that their type rounds stay at it: nothing goes back through them.
TYPED_TEST(CudaTrainLayers, WhatWasCutHandsNothingBack) {
  using T = TypeParam;
  on_each_gpu([](Device& device, Stream& stream) {
    constexpr std::int64_t kRows = 4;
    const LinearKernels<T>& kernels = cuda_kernels<T>()->dense;
    const Epilogue cut = {0.0F, 0.7F};
    const Panels<T> shape = {nullptr, kRows, 3, kWidth, nullptr};
    const std::vector<T> ones(kRows * kWidth, T{1});
    const DeviceArray<T> values(std::vector<T>(kRows * kRows, T{1}), device, stream);
    const DeviceArray<Wide<T>> bias(std::vector<Wide<T>>(kRows), device, stream);
    const DeviceArray<T> x(ones, device, stream);
    const DeviceArray<T> y(ones, device, stream);
    const DeviceArray<T> dx(ones, device, stream);
    LinearView<T> layer = {{kRows, kRows, kRows * kRows}, values.data(), bias.data()};
    kernels.forward({layer, cut, with<const T>(shape, x.data()), with<T>(shape, y.data()), {}},
                    stream);
    kernels.backward_data({layer,
                           with<const T>(shape, x.data()),
                           cut,
                           with<const T>(shape, y.data()),
                           with<T>(shape, dx.data()),
                           nullptr,
                           {}},
                          stream);
    for (const Wide<T> value : y.read()) EXPECT_NEAR(value, 0.7, 0x1p-8);
    for (const Wide<T> value : dx.read()) EXPECT_EQ(value, 0);
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
