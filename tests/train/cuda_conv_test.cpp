// Training's convolutions and poolings on CUDA devices, or where tests are built for the SIMT
// layer, on that: the same windows, bounds and references as the CPU's.
#include <memory>

#include "device_pattern.hpp"
#include "support/devices.hpp"
#include "train/conv_problems.hpp"

namespace spdnn {
namespace {

using test::ConvCase;
using test::ConvOutputs;
using test::ConvProblem;
using test::DeviceArray;
using test::OwnedPanels;
using train::TrainLayer;

constexpr std::int64_t kWidth = 64;

template <class T>
const TrainKernels<T>* cuda_kernels() {
  for (const TrainKernels<T>& kernels : train_kernels<T>()) {
    if (kernels.device == DeviceKind::cuda) return &kernels;
  }
  return nullptr;
}

/// Calls `body(device, stream)` for every GPU; skips where there is none.
template <class Body>
void on_each_gpu(const Body& body) {
  bool found = false;
  for (const DeviceSpec& spec : test::tested_devices()) {
    if (spec.kind != DeviceKind::cuda) continue;
    found = true;
    const std::unique_ptr<Device> device = open_device(spec);
    const auto stream = device->make_stream();
    body(*device, *stream);
  }
  if (!found) GTEST_SKIP() << "there is no CUDA device";
}

template <class T>
Panels<T> with(const Panels<T>& shape, T* data) {
  return {data, shape.features, shape.batch, shape.width, nullptr};
}

template <class T>
std::unique_ptr<ConvOutputs<T>> compute(const ConvProblem<T>& p, Device& device, Stream& stream) {
  const TrainKernels<T>& kernels = *cuda_kernels<T>();
  const std::int64_t batch = p.x.view.batch;
  auto out = std::unique_ptr<ConvOutputs<T>>(new ConvOutputs<T>{
      {p.dz.view.features, batch, kWidth}, {p.x.view.features, batch, kWidth}, {}, {}});
  const train::DevicePattern pattern(p.layer.pattern, device, stream);
  const DeviceArray<T> values(p.values, device, stream);
  const DeviceArray<T> bias(p.bias, device, stream);
  const DeviceArray<T> x_there(p.x.data, device, stream);
  const DeviceArray<T> dz_there(p.dz.data, device, stream);
  const DeviceArray<T> y(std::vector<T>(p.dz.data.size(), T{9}), device, stream);
  const DeviceArray<T> dx(std::vector<T>(p.x.data.size(), T{9}), device, stream);
  const DeviceArray<T> dvalues(std::vector<T>(p.values.size(), T{9}), device, stream);
  const DeviceArray<T> dbias(std::vector<T>(p.bias.size(), T{9}), device, stream);
  const DeviceArray<T> workspace(p.values, device, stream);
  const LinearView<T> layer = {pattern.view(), values.data(), bias.data()};
  const Panels<const T> x = with(p.x.view, x_there.data());
  const Panels<const T> dz = with(p.dz.view, dz_there.data());
  train::forward(p.layer, kernels, layer, x, with(p.dz.view, y.data()), stream);
  train::backward_data(p.layer, kernels, layer, dz, p.below, x, with(p.x.view, dx.data()),
                       workspace.data(), stream);
  train::backward_weights(p.layer, kernels, pattern.view(), dz, x, dvalues.data(), dbias.data(),
                          stream);
  out->y.data = y.read();
  out->dx.data = dx.read();
  out->y.view.data = out->y.data.data();
  out->dx.view.data = out->dx.data.data();
  out->dvalues = dvalues.read();
  out->dbias = dbias.read();
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

/// Against the CPU's reference, on inputs of which many are equal.
template <class T>
void compare_pools() {
  on_each_gpu([](Device& device, Stream& stream) {
    const std::unique_ptr<Device> cpu = open_device({});
    const auto cpu_stream = cpu->make_stream();
    const TrainKernels<T>& reference = train_kernels<T>().back();
    std::mt19937_64 random(4);
    for (const Window2d& window : test::windows()) {
      for (const LayerKind kind : {LayerKind::max_pool, LayerKind::average_pool}) {
        const std::int64_t batch = window.channels == 3 ? 70 : 37;
        SCOPED_TRACE(
            fmt::format("{} {}", to_string(kind), test::name_of(ConvCase{window, 0, 0.0, batch})));
        const TrainLayer layer = train::pool_layer(window, kind);
        OwnedPanels<T> x(layer.inputs(), batch, kWidth);
        OwnedPanels<T> dy(layer.outputs(), batch, kWidth);
        test::fill_random(x, T{0}, random);
        test::fill_random(dy, T{0}, random);
        for (T& value : x.data) value = std::round(value * T{2}) / T{2};
        OwnedPanels<T> y(layer.outputs(), batch, kWidth);
        OwnedPanels<T> dx(layer.inputs(), batch, kWidth);
        T* const none = nullptr;
        train::forward(layer, reference, {}, Panels<const T>(x.view), y.view, *cpu_stream);
        train::backward_data(layer, reference, {}, Panels<const T>(dy.view), test::kClipped,
                             Panels<const T>(x.view), dx.view, none, *cpu_stream);
        const DeviceArray<T> x_there(x.data, device, stream);
        const DeviceArray<T> dy_there(dy.data, device, stream);
        const DeviceArray<T> y_there(std::vector<T>(y.data.size(), T{9}), device, stream);
        const DeviceArray<T> dx_there(std::vector<T>(dx.data.size(), T{9}), device, stream);
        const Panels<const T> x_view = with(x.view, x_there.data());
        const Panels<const T> dy_view = with(dy.view, dy_there.data());
        train::forward(layer, *cuda_kernels<T>(), {}, x_view, with(y.view, y_there.data()), stream);
        train::backward_data(layer, *cuda_kernels<T>(), {}, dy_view, test::kClipped, x_view,
                             with(dx.view, dx_there.data()), none, stream);
        const double near = 64.0 * static_cast<double>(std::numeric_limits<T>::epsilon());
        const std::vector<T> got = y_there.read();
        for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], y.data[i], near);
        const std::vector<T> slopes = dx_there.read();
        for (std::size_t i = 0; i < slopes.size(); ++i) {
          ASSERT_NEAR(slopes[i], dx.data[i], 16.0 * near) << "input " << i;
        }
      }
    }
  });
}

TEST(CudaPooling, AgreesWithTheReference) {
  compare_pools<float>();
  compare_pools<double>();
}

}  // namespace
}  // namespace spdnn
