// The CPU kernels of convolutions and poolings: every one of the table × windows × float and double
// × each instruction set, against sums in long double within the rounding bound; one thread and
// three give the same bits, and forward is one chain a pixel in the row's order.
#include <hwy/targets.h>

#include "train/conv_problems.hpp"

namespace spdnn {
namespace {

using test::check;
using test::conv_cases;
using test::ConvCase;
using test::ConvOutputs;
using test::ConvProblem;
using test::OwnedPanels;
using test::windows;
using train::TrainLayer;

template <class T>
std::unique_ptr<ConvOutputs<T>> compute(const ConvProblem<T>& p, const TrainKernels<T>& kernels,
                                        Stream& stream) {
  const std::int64_t batch = p.x.view.batch;
  const std::int64_t width = p.x.view.width;
  auto out =
      std::unique_ptr<ConvOutputs<T>>(new ConvOutputs<T>{{p.dz.view.features, batch, width},
                                                         {p.x.view.features, batch, width},
                                                         std::vector<T>(p.values.size(), T{9}),
                                                         std::vector<T>(p.bias.size(), T{9}),
                                                         {},
                                                         {}});
  std::fill(out->y.data.begin(), out->y.data.end(), T{9});
  std::fill(out->dx.data.begin(), out->dx.data.end(), T{9});
  std::vector<T> workspace(p.values.size());
  const Panels<const T> x = p.x.view;
  const Panels<const T> dz = p.dz.view;
  train::forward(p.layer, kernels, p.view(), x, out->y.view, stream);
  train::backward_data(p.layer, kernels, p.view(), dz, p.below, x, out->dx.view, workspace.data(),
                       stream);
  const auto weights = [&](std::vector<T>& dvalues, std::vector<T>& dbias, bool adds_up) {
    train::backward_weights(p.layer, kernels, p.layer.pattern.view(), dz, x,
                            {dvalues.data(), dbias.data(), adds_up}, stream);
  };
  weights(out->dvalues, out->dbias, false);
  out->dvalues_twice = out->dvalues;
  out->dbias_twice = out->dbias;
  weights(out->dvalues_twice, out->dbias_twice, true);
  return out;
}

/// Lanes past the last vector with an image are 0, whatever was there.
template <class T>
void check_rest(const Panels<T>& panels) {
  constexpr std::int64_t kWidest = 64 / sizeof(T);
  const std::int64_t used = (panels.batch + kWidest - 1) / kWidest * kWidest;
  for (std::int64_t lane = used; lane < panels.count() * panels.width; ++lane) {
    for (std::int64_t f = 0; f < panels.features; ++f) ASSERT_EQ(panels.at(f, lane), T{0});
  }
}

template <class T>
void run_all_cases() {
  DeviceSpec threaded;
  threaded.threads = 3;
  const std::unique_ptr<Device> device = open_device({});
  const std::unique_ptr<Device> team = open_device(threaded);
  const auto stream = device->make_stream();
  const auto team_stream = team->make_stream();
  for (const TrainKernels<T>& kernels : train_kernels<T>()) {
    if (kernels.device != DeviceKind::cpu) continue;
    const bool fast = kernels.name != "reference";
    std::mt19937_64 random(7);
    for (const ConvCase& c : conv_cases()) {
      SCOPED_TRACE(fmt::format("{} {}", kernels.name, name_of(c)));
      const ConvProblem<T> problem(c, panel_width(device->info()), random);
      const auto one = compute(problem, kernels, *stream);
      ASSERT_NO_FATAL_FAILURE(check(problem, *one, false));
      if (!fast) continue;
      ASSERT_NO_FATAL_FAILURE(check_rest(one->y.view));
      ASSERT_NO_FATAL_FAILURE(check_rest(one->dx.view));
      const auto three = compute(problem, kernels, *team_stream);
      EXPECT_EQ(one->y.data, three->y.data);
      EXPECT_EQ(one->dx.data, three->dx.data);
      EXPECT_EQ(one->dvalues, three->dvalues);
      EXPECT_EQ(one->dbias, three->dbias);
    }
  }
}

TEST(Convolution, LayersInFloat) { run_all_cases<float>(); }
TEST(Convolution, LayersInDouble) { run_all_cases<double>(); }

/// Of every instruction set that rounds once in a multiply–add.
TEST(Convolution, ForwardIsCanonicalOnEveryTarget) {
  const std::unique_ptr<Device> device = open_device({});
  const auto stream = device->make_stream();
  const TrainKernels<float>& kernels = train_kernels<float>().front();
  struct Restore {
    ~Restore() { hwy::SetSupportedTargetsForTest(0); }
  };
  const Restore restore;
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    std::mt19937_64 random(9);
    for (const Window2d& window : windows()) {
      for (const double density : {0.25, 1.0}) {
        const ConvCase c = {window, 7, density, 5};
        SCOPED_TRACE(fmt::format("{} {}", hwy::TargetName(target), name_of(c)));
        const ConvProblem<float> problem(c, panel_width(device->info()), random);
        const auto out = compute(problem, kernels, *stream);
        ASSERT_NO_FATAL_FAILURE(check(problem, *out, target <= HWY_AVX2));
      }
    }
  }
}

/// The fast kernels against the reference, which the gradient test holds against differences.
template <class T>
void compare_pools() {
  const std::unique_ptr<Device> device = open_device({});
  const auto stream = device->make_stream();
  const TrainKernels<T>& fast = train_kernels<T>().front();
  const TrainKernels<T>& reference = train_kernels<T>().back();
  std::mt19937_64 random(4);
  for (const Window2d& window : windows()) {
    for (const LayerKind kind : {LayerKind::max_pool, LayerKind::average_pool}) {
      SCOPED_TRACE(
          fmt::format("{} {}", to_string(kind), test::name_of(ConvCase{window, 0, 0.0, 37})));
      const TrainLayer layer = train::pool_layer(window, kind);
      OwnedPanels<T> x(layer.inputs(), 37, panel_width(device->info()));
      OwnedPanels<T> dy(layer.outputs(), 37, x.view.width);
      test::fill_random(x, T{0}, random);
      test::fill_random(dy, T{0}, random);
      for (T& value : x.data) value = std::round(value * T{2}) / T{2};  // many are equal
      OwnedPanels<T> y[2] = {{layer.outputs(), 37, x.view.width},
                             {layer.outputs(), 37, x.view.width}};
      OwnedPanels<T> dx[2] = {{layer.inputs(), 37, x.view.width},
                              {layer.inputs(), 37, x.view.width}};
      for (int i = 0; i < 2; ++i) {
        const TrainKernels<T>& kernels = i == 0 ? fast : reference;
        train::forward(layer, kernels, {}, Panels<const T>(x.view), y[i].view, *stream);
        train::backward_data(layer, kernels, {}, Panels<const T>(dy.view), test::kClipped,
                             Panels<const T>(x.view), dx[i].view, static_cast<T*>(nullptr),
                             *stream);
      }
      const double near = 64.0 * static_cast<double>(std::numeric_limits<T>::epsilon());
      for (std::size_t i = 0; i < y[0].data.size(); ++i)
        ASSERT_NEAR(y[0].data[i], y[1].data[i], near);
      for (std::size_t i = 0; i < dx[0].data.size(); ++i) {
        ASSERT_NEAR(dx[0].data[i], dx[1].data[i], 16.0 * near);
      }
    }
  }
}

TEST(Pooling, FastAgreesWithTheReference) {
  compare_pools<float>();
  compare_pools<double>();
}

}  // namespace
}  // namespace spdnn
