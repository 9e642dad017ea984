// The kernels of convolutions and poolings: every one of the table × windows × float and double ×
// each instruction set, against sums in long double within the rounding bound; one thread and three
// give the same bits, and forward is one chain a pixel in the row's order.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <limits>

#include "spdnn/model.hpp"
#include "train/problems.hpp"

namespace spdnn {
namespace {

using test::OwnedPanels;
using train::TrainLayer;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr Epilogue kRelu = {0.0F, kInfinity};
constexpr Epilogue kClipped = {0.0F, 0.75F};

struct Case {
  Window2d window;
  std::int64_t filters;
  double density;  ///< 1: dense filters
  std::int64_t batch;
};

std::string name_of(const Case& c) {
  const Window2d& w = c.window;
  return fmt::format("{}x{}x{} by {}x{}/{} pad {},{} to {}x{}x{} density {} batch {}", w.channels,
                     w.in_height, w.in_width, w.kernel_height, w.kernel_width, w.stride, w.pad_top,
                     w.pad_left, c.filters, w.out_height, w.out_width, c.density, c.batch);
}

std::vector<Window2d> windows() {
  std::vector<Window2d> all = {make_window(3, 8, 8, 3, 1, {}),  make_window(2, 7, 9, 3, 1, 0),
                               make_window(3, 9, 6, 3, 2, {}),  make_window(1, 11, 10, 5, 3, 2),
                               make_window(4, 5, 5, 1, 1, 0),   make_window(2, 6, 7, 1, 2, 0),
                               make_window(2, 7, 7, 2, 3, 1),   make_window(5, 4, 4, 3, 1, {}),
                               make_window(2, 1, 1, 3, 1, {}),  make_window(1, 13, 3, 7, 1, 6),
                               make_window(17, 3, 2, 2, 1, {}), make_window(2, 6, 6, 4, 4, 0)};
  Window2d wide = make_window(2, 6, 12, 3, 1, {});
  wide.kernel_width = 5;  // other than it is high, and further outside
  wide.pad_left = 3;
  all.push_back(wide);
  return all;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Window2d& window : windows()) {
    for (const double density : {0.25, 1.0}) all.push_back({window, 7, density, 35});
  }
  const Window2d window = make_window(3, 5, 6, 3, 1, {});
  for (const std::int64_t batch : {0, 1, 32, 70}) {
    all.push_back({window, 5, 0.3, batch});
    all.push_back({window, 5, 1.0, batch});
  }
  for (const std::int64_t filters : {1, 2, 6, 13}) {
    all.push_back({window, filters, 0.3, 3});
    all.push_back({window, filters, 1.0, 3});
  }
  all.push_back({window, 4, 0.0, 33});  // no connection at all
  return all;
}

template <class T>
double gamma(std::int64_t n) {
  const double u = static_cast<double>(std::numeric_limits<T>::epsilon()) / 2.0;
  return static_cast<double>(n) * u / (1.0 - static_cast<double>(n) * u);
}

struct Sum {
  long double value = 0.0L;
  double magnitude = 0.0;
  std::int64_t terms = 0;
  void add(double a, double b) {
    value += static_cast<long double>(a) * b;
    magnitude += std::abs(a * b);
    ++terms;
  }
};

template <class T>
void expect_within(double got, const Sum& sum, double exact) {
  ASSERT_LE(std::abs(got - exact), gamma<T>(sum.terms + 2) * sum.magnitude);
}

template <class T>
struct Problem {
  TrainLayer layer;
  std::vector<T> values, bias;
  OwnedPanels<T> x, dz;
  Epilogue below = kClipped;

  Problem(const Case& c, std::int64_t width, std::mt19937_64& random)
      : layer(train::conv_layer(
            c.window,
            test::layer_pattern(c.filters, c.window.channels * c.window.taps(), c.density, random),
            kRelu)),
        values(test::random_values<T>(layer.pattern.nnz(), random)),
        bias(test::random_values<T>(c.filters, random)),
        x(c.window.inputs(), c.batch, width),
        dz(c.filters * c.window.out_pixels(), c.batch, width) {
    test::fill_random(x, T{3}, random);
    test::fill_random(dz, T{0}, random);
  }
  [[nodiscard]] const Window2d& window() const {
    return std::get<train::ConvForm>(layer.form).window;
  }
  [[nodiscard]] LinearView<T> view() const {
    return {layer.pattern.view(), values.data(), bias.data()};
  }

  /// Calls `visit(entry, row, out pixel, input)` for every product of the convolution, row by row
  /// and pixel by pixel in the order of entries.
  template <class Visit>
  void for_each_product(const Visit& visit) const {
    const Window2d& w = window();
    const train::Pattern& p = layer.pattern;
    for (std::int64_t row = 0; row < p.rows(); ++row) {
      const std::int64_t begin = p.is_dense() ? row * p.cols() : p.row_offsets()[row];
      for (std::int64_t pixel = 0; pixel < w.out_pixels(); ++pixel) {
        for (std::int64_t k = begin; k < begin + p.fan_in(row); ++k) {
          const std::int64_t col = p.is_dense() ? k - begin : p.col_indices()[k];
          const std::int64_t tap = col % w.taps();
          const std::int64_t in_y =
              pixel / w.out_width * w.stride + tap / w.kernel_width - w.pad_top;
          const std::int64_t in_x =
              pixel % w.out_width * w.stride + tap % w.kernel_width - w.pad_left;
          if (in_y < 0 || in_y >= w.in_height || in_x < 0 || in_x >= w.in_width) continue;
          visit(k, row, pixel, (col / w.taps() * w.in_height + in_y) * w.in_width + in_x);
        }
      }
    }
  }
};

template <class T>
struct Outputs {
  OwnedPanels<T> y, dx;
  std::vector<T> dvalues, dbias;
};

template <class T>
std::unique_ptr<Outputs<T>> compute(const Problem<T>& p, const TrainKernels<T>& kernels,
                                    Stream& stream) {
  const std::int64_t batch = p.x.view.batch;
  const std::int64_t width = p.x.view.width;
  auto out = std::unique_ptr<Outputs<T>>(new Outputs<T>{{p.dz.view.features, batch, width},
                                                        {p.x.view.features, batch, width},
                                                        std::vector<T>(p.values.size(), T{9}),
                                                        std::vector<T>(p.bias.size(), T{9})});
  std::vector<T> workspace(p.values.size());
  const Panels<const T> x = p.x.view;
  const Panels<const T> dz = p.dz.view;
  train::forward(p.layer, kernels, p.view(), x, out->y.view, stream);
  train::backward_data(p.layer, kernels, p.view(), dz, p.below, x, out->dx.view, workspace.data(),
                       stream);
  train::backward_weights(p.layer, kernels, p.layer.pattern.view(), dz, x, out->dvalues.data(),
                          out->dbias.data(), stream);
  return out;
}

template <class T>
void check(const Problem<T>& p, const Outputs<T>& out, bool canonical) {
  const std::int64_t pixels = p.window().out_pixels();
  std::vector<Sum> dvalues(p.values.size());
  std::vector<Sum> dbias(p.bias.size());
  for (std::int64_t image = 0; image < p.x.view.batch; ++image) {
    std::vector<Sum> y(static_cast<std::size_t>(p.dz.view.features));
    std::vector<Sum> dx(static_cast<std::size_t>(p.x.view.features));
    std::vector<T> chain(y.size());
    p.for_each_product([&](std::int64_t k, std::int64_t row, std::int64_t pixel, std::int64_t in) {
      const std::int64_t feature = row * pixels + pixel;
      const T x = p.x.view.at(in, image);
      const T dz = p.dz.view.at(feature, image);
      y[feature].add(p.values[k], x);
      dx[in].add(p.values[k], dz);
      dvalues[k].add(dz, x);
      chain[feature] = std::fma(p.values[k], x, chain[feature]);
    });
    for (std::int64_t f = 0; f < std::ssize(y); ++f) {
      const T bias = p.bias[f / pixels];
      y[f].add(1.0, bias);
      dbias[f / pixels].add(1.0, p.dz.view.at(f, image));
      const T got = out.y.view.at(f, image);
      expect_within<T>(got, y[f], std::max(static_cast<double>(y[f].value), 0.0));
      if (canonical) {
        ASSERT_EQ(got, std::max(chain[f] + bias, T{0}));
      }
    }
    for (std::int64_t in = 0; in < std::ssize(dx); ++in) {
      const T x = p.x.view.at(in, image);
      const bool inside = x > T{p.below.lower} && x < T{p.below.upper};
      expect_within<T>(out.dx.view.at(in, image), dx[in],
                       inside ? static_cast<double>(dx[in].value) : 0.0);
    }
  }
  for (std::size_t k = 0; k < dvalues.size(); ++k) {
    expect_within<T>(out.dvalues[k], dvalues[k], static_cast<double>(dvalues[k].value));
  }
  for (std::size_t row = 0; row < dbias.size(); ++row) {
    expect_within<T>(out.dbias[row], dbias[row], static_cast<double>(dbias[row].value));
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
    for (const Case& c : cases()) {
      SCOPED_TRACE(fmt::format("{} {}", kernels.name, name_of(c)));
      const Problem<T> problem(c, panel_width(device->info()), random);
      const auto one = compute(problem, kernels, *stream);
      ASSERT_NO_FATAL_FAILURE(check(problem, *one, false));
      if (!fast) continue;
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
        const Case c = {window, 7, density, 5};
        SCOPED_TRACE(fmt::format("{} {}", hwy::TargetName(target), name_of(c)));
        const Problem<float> problem(c, panel_width(device->info()), random);
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
      SCOPED_TRACE(fmt::format("{} {}", to_string(kind), name_of({window, 0, 0.0, 37})));
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
        train::backward_data(layer, kernels, {}, Panels<const T>(dy.view), kClipped,
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
