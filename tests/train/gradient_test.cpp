// Gradients of whole networks against central differences of their loss, in double.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "spdnn/model.hpp"
#include "train/problems.hpp"

namespace spdnn {
namespace {

using test::OwnedPanels;
using train::BatchPass;
using train::Network;
using train::Pattern;
using train::TrainLayer;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr Epilogue kRelu = {0.0F, kInfinity};
constexpr Epilogue kClipped = {0.0F, 1.0F};
constexpr Epilogue kIdentity = {-kInfinity, kInfinity};

struct Case {
  std::string name;
  Loss loss;
  std::vector<TrainLayer> layers;
  std::int64_t batch;
};

/// Layers of these widths; `density` 1: dense ones.
std::vector<TrainLayer> linear_layers(const std::vector<std::int64_t>& widths, double density,
                                      const Epilogue& hidden, const Epilogue& last,
                                      std::mt19937_64& random) {
  std::vector<TrainLayer> layers;
  for (std::size_t l = 0; l + 1 < widths.size(); ++l) {
    layers.push_back(
        train::linear_layer(test::layer_pattern(widths[l + 1], widths[l], density, random),
                            l + 2 == widths.size() ? last : hidden));
  }
  return layers;
}

/// Appends a convolution of `filters` that takes the planes `in`; returns the planes it puts out.
Window2d add_conv(std::vector<TrainLayer>& layers, const Window2d& window, std::int64_t filters,
                  double density, const Epilogue& h, std::mt19937_64& random) {
  layers.push_back(train::conv_layer(
      window, test::layer_pattern(filters, window.channels * window.taps(), density, random), h));
  return {filters, window.out_height, window.out_width};
}

Window2d add_pool(std::vector<TrainLayer>& layers, const Window2d& window, LayerKind kind) {
  layers.push_back(train::pool_layer(window, kind));
  return {window.channels, window.out_height, window.out_width};
}

Window2d over(const Window2d& planes, std::int64_t kernel, std::int64_t stride,
              std::optional<std::int64_t> padding) {
  return make_window(planes.channels, planes.in_height, planes.in_width, kernel, stride, padding);
}

/// Convolution, pooling, convolution and a linear layer; density 1: dense.
std::vector<TrainLayer> convolutional(const Window2d& in, double density, LayerKind pool,
                                      std::int64_t kernel, std::int64_t stride,
                                      const Epilogue& hidden, std::mt19937_64& random) {
  std::vector<TrainLayer> layers;
  Window2d planes = add_conv(layers, over(in, kernel, 1, {}), 3, density, hidden, random);
  planes = add_pool(layers, over(planes, 2 + (stride - 1), 2, {}), pool);
  planes = add_conv(layers, over(planes, kernel, stride, 1), 4, density, hidden, random);
  layers.push_back(train::linear_layer(
      test::layer_pattern(4, planes.channels * planes.in_pixels(), 1.0, random), kIdentity));
  return layers;
}

std::vector<Case> cases(std::mt19937_64& random) {
  const auto linear = [&](std::vector<std::int64_t> widths, double density, Epilogue hidden,
                          Epilogue last) {
    return linear_layers(widths, density, hidden, last, random);
  };
  const auto conv = [&](const Window2d& in, double density, LayerKind pool, std::int64_t kernel,
                        std::int64_t stride, const Epilogue& hidden) {
    return convolutional(in, density, pool, kernel, stride, hidden, random);
  };
  const Loss entropy = Loss::cross_entropy;
  const Loss squares = Loss::mean_squared_error;
  std::vector<Case> all = {
      {"sparse, ReLU, cross-entropy", entropy, linear({13, 29, 17, 5}, 0.3, kRelu, kIdentity), 7},
      {"sparse, clipped", entropy, linear({13, 31, 33, 21, 5}, 0.4, kClipped, kIdentity), 37},
      {"sparse, squares", squares, linear({11, 23, 4}, 0.5, kRelu, kIdentity), 33},
      {"sparse, a clipped last layer", squares, linear({11, 23, 4}, 0.5, kRelu, kClipped), 5},
      {"dense, clipped", entropy, linear({9, 18, 11, 6}, 1.0, kClipped, kIdentity), 34},
      {"dense, squares", squares, linear({9, 18, 6}, 1.0, kRelu, kRelu), 3},
      {"one layer", entropy, linear({20, 10}, 0.5, kRelu, kIdentity), 64},
      {"conv, max", entropy, conv({2, 5, 4}, 0.5, LayerKind::max_pool, 3, 1, kRelu), 5},
      {"conv, max, stride", squares, conv({3, 6, 7}, 0.4, LayerKind::max_pool, 3, 2, kClipped), 33},
      {"conv, average", entropy, conv({2, 6, 5}, 0.4, LayerKind::average_pool, 5, 1, kRelu), 3},
      {"dense conv", entropy, conv({2, 4, 5}, 1.0, LayerKind::max_pool, 3, 1, kRelu), 4},
      {"dense conv, stride 3", entropy, conv({1, 9, 8}, 1.0, LayerKind::average_pool, 2, 3, kRelu),
       35},
  };
  // As users like it: the last of sparse layers dense.
  std::vector<TrainLayer> mixed = linear({11, 23, 19}, 0.5, kRelu, kRelu);
  mixed.push_back(train::linear_layer(Pattern::dense(4, 19), kIdentity));
  all.push_back({"sparse, dense last", entropy, std::move(mixed), 33});
  return all;
}

/// Largest |numeric − analytic| of all parameters relative to the largest gradient. Where a step
/// moves a sum across a bend of an activation or from one input of a maximum to another, a
/// difference is no derivative; a shorter step then is one.
double worst_error(const Case& c, const TrainKernels<double>& kernels) {
  std::mt19937_64 random(11);
  const std::unique_ptr<Device> device = open_device({});
  const auto stream = device->make_stream();
  Network<double> network(c.layers, kernels, *device, *stream);
  network.initialize(5);
  BatchPass<double> pass(network, c.batch);
  OwnedPanels<double> x(network.inputs(), c.batch, panel_width(device->info()));
  test::fill_random(x, 0.0, random);
  std::vector<std::int32_t> labels(static_cast<std::size_t>(c.batch));
  for (std::int32_t& label : labels) {
    label = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(network.outputs()));
  }
  double* parameters = network.parameters();
  for (std::int64_t i = network.value_count(); i < network.parameter_count(); ++i) {
    parameters[i] = 0.1;  // so that ReLUs of unconnected outputs are not at their bend
  }
  const auto loss = [&] {
    pass.start(x.view, c.loss, labels.data(), 1.0);
    return pass.finish_loss(nullptr);
  };
  static_cast<void>(loss());
  pass.backward();
  const std::vector<double> gradient(network.gradient(),
                                     network.gradient() + network.parameter_count());
  double largest = 0.0;
  double worst = 0.0;
  for (const double g : gradient) largest = std::max(largest, std::abs(g));
  const auto error_at = [&](std::int64_t i, double step) {
    const double kept = parameters[i];
    parameters[i] = kept + step;
    const double above = loss();
    parameters[i] = kept - step;
    const double below = loss();
    parameters[i] = kept;
    return std::abs((above - below) / (2.0 * step) - gradient[i]);
  };
  for (std::int64_t i = 0; i < network.parameter_count(); ++i) {
    double error = error_at(i, 1e-5);
    for (double step = 1e-6; error > 1e-6 * largest && step > 1e-8; step /= 10.0) {
      error = std::min(error, error_at(i, step));
    }
    worst = std::max(worst, error);
  }
  return worst / largest;
}

TEST(TrainGradient, NetworksAgreeWithDifferences) {
  for (const TrainKernels<double>& kernels : train_kernels<double>()) {
    if (kernels.device != DeviceKind::cpu) continue;
    std::mt19937_64 random(17);
    for (const Case& c : cases(random)) {
      SCOPED_TRACE(fmt::format("{}: {}", kernels.name, c.name));
      const double error = worst_error(c, kernels);
      RecordProperty(fmt::format("{} {}", kernels.name, c.name), fmt::format("{}", error));
      EXPECT_LT(error, 1e-6);
    }
  }
}

}  // namespace
}  // namespace spdnn
