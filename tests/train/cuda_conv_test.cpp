// Training's convolutions and poolings on CUDA devices, or where tests are built for the SIMT
// layer, on that: the same windows, bounds and references as the CPU's.
#include <memory>

#include "device_pattern.hpp"
#include "train/conv_problems.hpp"
#include "train/on_gpu.hpp"

namespace spdnn {
namespace {

using test::ConvCase;
using test::ConvOutputs;
using test::ConvProblem;
using test::cuda_kernels;
using test::DeviceArray;
using test::on_each_gpu;
using test::OwnedPanels;
using test::with;
using train::TrainLayer;

constexpr std::int64_t kWidth = test::kGpuWidth;

template <class T>
std::unique_ptr<ConvOutputs<T>> compute(const ConvProblem<T>& p, Device& device, Stream& stream) {
  const TrainKernels<T>& kernels = *cuda_kernels<T>();
  const std::int64_t batch = p.x.view.batch;
  auto out = std::unique_ptr<ConvOutputs<T>>(new ConvOutputs<T>{
      {p.dz.view.features, batch, kWidth}, {p.x.view.features, batch, kWidth}, {}, {}, {}, {}});
  const train::DevicePattern pattern(p.layer.pattern, device, stream);
  const DeviceArray<T> values(p.values, device, stream);
  const DeviceArray<Wide<T>> bias(p.bias, device, stream);
  const DeviceArray<T> x_there(p.x.data, device, stream);
  const DeviceArray<T> dz_there(p.dz.data, device, stream);
  const DeviceArray<T> y(std::vector<T>(p.dz.data.size(), T{9}), device, stream);
  const DeviceArray<T> dx(std::vector<T>(p.x.data.size(), T{9}), device, stream);
  const DeviceArray<Wide<T>> dvalues(std::vector<Wide<T>>(p.values.size(), Wide<T>{9}), device,
                                     stream);
  const DeviceArray<Wide<T>> dbias(std::vector<Wide<T>>(p.bias.size(), Wide<T>{9}), device, stream);
  const DeviceArray<T> workspace(p.values, device, stream);
  const LinearView<T> layer = {pattern.view(), values.data(), bias.data()};
  const Panels<const T> x = with(p.x.view, x_there.data());
  const Panels<const T> dz = with(p.dz.view, dz_there.data());
  train::forward(p.layer, kernels, layer, x, with(p.dz.view, y.data()), stream);
  train::backward_data(p.layer, kernels, layer, dz, p.below, x, with(p.x.view, dx.data()),
                       workspace.data(), stream);
  const auto weights = [&](bool adds_up) {
    train::backward_weights(p.layer, kernels, pattern.view(), dz, x,
                            {dvalues.data(), dbias.data(), adds_up}, stream);
  };
  weights(false);
  out->y.data = y.read();
  out->dx.data = dx.read();
  out->y.view.data = out->y.data.data();
  out->dx.view.data = out->dx.data.data();
  out->dvalues = dvalues.read();
  out->dbias = dbias.read();
  weights(true);
  out->dvalues_twice = dvalues.read();
  out->dbias_twice = dbias.read();
  return out;
}

template <class T>
void run_all_cases() {
  on_each_gpu([](Device& device, Stream& stream) {
    std::mt19937_64 random(7);
    for (const ConvCase& c : test::conv_cases()) {
      SCOPED_TRACE(test::name_of(c));
      const ConvProblem<T> problem(c, kWidth, random);
      const auto out = compute(problem, device, stream);
      ASSERT_NO_FATAL_FAILURE(test::check(problem, *out, false));
    }
  });
}

TEST(CudaConvolution, LayersInFloat) { run_all_cases<float>(); }
TEST(CudaConvolution, LayersInDouble) { run_all_cases<double>(); }
TEST(CudaConvolution, LayersStoredInHalf) { run_all_cases<Half>(); }
TEST(CudaConvolution, LayersStoredInBfloat16) { run_all_cases<Bfloat16>(); }

/// More lines than a block has warps, more entries than a warp has lanes, several tiles and panels.
TEST(CudaConvolution, LargerLayersGiveTheSameBitsAgain) {
  on_each_gpu([](Device& device, Stream& stream) {
    std::mt19937_64 random(8);
    for (const double density : {0.5, 1.0}) {
      const ConvProblem<float> problem({make_window(9, 10, 11, 3, 1, {}), 3, density, 66}, kWidth,
                                       random);
      const auto out = compute(problem, device, stream);
      ASSERT_NO_FATAL_FAILURE(test::check(problem, *out, false));
      const auto again = compute(problem, device, stream);
      EXPECT_EQ(again->y.data, out->y.data);
      EXPECT_EQ(again->dx.data, out->dx.data);
      EXPECT_EQ(again->dvalues, out->dvalues);
      EXPECT_EQ(again->dbias, out->dbias);
    }
  });
}

/// Against the CPU's reference in double, on inputs of which many are equal.
template <class T>
void compare_pools() {
  on_each_gpu([](Device& device, Stream& stream) {
    const std::unique_ptr<Device> cpu = open_device({});
    const auto cpu_stream = cpu->make_stream();
    const TrainKernels<double>& reference = train_kernels<double>().back();
    std::mt19937_64 random(4);
    for (const Window2d& window : test::windows()) {
      for (const LayerKind kind : {LayerKind::max_pool, LayerKind::average_pool}) {
        const std::int64_t batch = window.channels == 3 ? 70 : 37;
        SCOPED_TRACE(
            fmt::format("{} {}", to_string(kind), test::name_of(ConvCase{window, 0, 0.0, batch})));
        const TrainLayer layer = train::pool_layer(window, kind);
        OwnedPanels<double> x(layer.inputs(), batch, kWidth);
        OwnedPanels<double> dy(layer.outputs(), batch, kWidth);
        test::fill_random(x, 0.0, random);
        test::fill_random(dy, 0.0, random);
        for (double& value : x.data) value = std::round(value * 2.0) / 2.0;
        for (double& value : dy.data)
          value = static_cast<double>(Wide<T>(T(static_cast<Wide<T>>(value))));
        OwnedPanels<double> y(layer.outputs(), batch, kWidth);
        OwnedPanels<double> dx(layer.inputs(), batch, kWidth);
        double* const nowhere = nullptr;
        train::forward(layer, reference, {}, Panels<const double>(x.view), y.view, *cpu_stream);
        train::backward_data(layer, reference, {}, Panels<const double>(dy.view), test::kClipped,
                             Panels<const double>(x.view), dx.view, nowhere, *cpu_stream);
        const auto stored = [&](const std::vector<double>& from) {
          std::vector<T> to;
          for (const double value : from) to.push_back(T(static_cast<Wide<T>>(value)));
          return DeviceArray<T>(to, device, stream);
        };
        const DeviceArray<T> x_there = stored(x.data);
        const DeviceArray<T> dy_there = stored(dy.data);
        const DeviceArray<T> y_there = stored(std::vector<double>(y.data.size(), 9.0));
        const DeviceArray<T> dx_there = stored(std::vector<double>(dx.data.size(), 9.0));
        const Panels<const T> x_view = with<const T>(x.view, x_there.data());
        const Panels<const T> dy_view = with<const T>(dy.view, dy_there.data());
        T* const none = nullptr;
        train::forward(layer, *cuda_kernels<T>(), {}, x_view, with(y.view, y_there.data()), stream);
        train::backward_data(layer, *cuda_kernels<T>(), {}, dy_view, test::kClipped, x_view,
                             with(dx.view, dx_there.data()), none, stream);
        const double near = 64.0 * static_cast<double>(std::numeric_limits<Wide<T>>::epsilon());
        const auto check = [&](const std::vector<T>& got, const std::vector<double>& right,
                               double most) {
          for (std::size_t i = 0; i < got.size(); ++i) {
            ASSERT_NEAR(static_cast<double>(Wide<T>(got[i])), right[i],
                        most + test::storing_error<T>(std::abs(right[i]) + most))
                << i;
          }
        };
        ASSERT_NO_FATAL_FAILURE(check(y_there.read(), y.data, near));
        ASSERT_NO_FATAL_FAILURE(check(dx_there.read(), dx.data, 16.0 * near));
      }
    }
  });
}

TEST(CudaPooling, AgreesWithTheReference) {
  compare_pools<float>();
  compare_pools<double>();
  compare_pools<Half>();
  compare_pools<Bfloat16>();
}

}  // namespace
}  // namespace spdnn
