// Gradients of whole networks against central differences of their loss, in double.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "train/problems.hpp"

namespace spdnn {
namespace {

using test::OwnedPanels;
using train::BatchPass;
using train::LinearLayer;
using train::Network;
using train::Pattern;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Case {
  std::string name;
  Loss loss;
  std::vector<std::int64_t> widths;
  double density;  ///< 1: dense layers
  Epilogue hidden, last;
  std::int64_t batch;
};

std::vector<Case> cases() {
  const Epilogue relu = {0.0F, kInfinity};
  const Epilogue clipped = {0.0F, 1.0F};
  const Epilogue identity = {-kInfinity, kInfinity};
  return {
      {"sparse, ReLU, cross-entropy", Loss::cross_entropy, {13, 29, 17, 5}, 0.3, relu, identity, 7},
      {"sparse, clipped", Loss::cross_entropy, {13, 31, 33, 21, 5}, 0.4, clipped, identity, 37},
      {"sparse, squares", Loss::mean_squared_error, {11, 23, 4}, 0.5, relu, identity, 33},
      {"sparse, squares of a clipped last layer",
       Loss::mean_squared_error,
       {11, 23, 4},
       0.5,
       relu,
       clipped,
       5},
      {"dense, clipped", Loss::cross_entropy, {9, 18, 11, 6}, 1.0, clipped, identity, 34},
      {"dense, squares", Loss::mean_squared_error, {9, 18, 6}, 1.0, relu, relu, 3},
      {"one layer", Loss::cross_entropy, {20, 10}, 0.5, relu, identity, 64},
  };
}

std::vector<LinearLayer> layers_of(const Case& c, std::mt19937_64& random) {
  std::vector<LinearLayer> layers;
  for (std::size_t l = 0; l + 1 < c.widths.size(); ++l) {
    const bool last = l + 2 == c.widths.size();
    // Users like their last layer dense.
    const bool dense = c.density >= 1.0 || (last && c.batch % 2 == 1);
    layers.push_back({dense ? Pattern::dense(c.widths[l + 1], c.widths[l])
                            : test::random_pattern(c.widths[l + 1], c.widths[l], c.density, random),
                      last ? c.last : c.hidden});
  }
  return layers;
}

/// Largest |numeric − analytic| of all parameters relative to the largest gradient. Where a step
/// moves a sum across a bend of an activation, a difference is no derivative: such a parameter is
/// told by its one-sided differences and left out; `bends` counts them.
double worst_error(const Case& c, const TrainKernels<double>& kernels, std::int64_t& bends) {
  std::mt19937_64 random(11);
  const std::unique_ptr<Device> device = open_device({});
  const auto stream = device->make_stream();
  Network<double> network(layers_of(c, random), kernels, *device, *stream);
  network.initialize(5);
  BatchPass<double> pass(network, c.batch);
  OwnedPanels<double> x(c.widths.front(), c.batch, panel_width(device->info()));
  test::fill_random(x, 0.0, random);
  std::vector<std::int32_t> labels(static_cast<std::size_t>(c.batch));
  for (std::int32_t& label : labels) {
    label = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(c.widths.back()));
  }
  double* parameters = network.parameters();
  for (std::int64_t i = network.value_count(); i < network.parameter_count(); ++i) {
    parameters[i] = 0.1;  // so that ReLUs of unconnected outputs are not at their bend
  }
  const auto loss = [&] {
    static_cast<void>(pass.forward(x.view));
    return pass.loss(c.loss, labels.data(), 1.0, nullptr);
  };
  const double base = loss();
  pass.backward();
  const std::vector<double> gradient(network.gradient(),
                                     network.gradient() + network.parameter_count());
  double largest = 0.0;
  double worst = 0.0;
  for (const double g : gradient) largest = std::max(largest, std::abs(g));
  constexpr double kStep = 1e-5;
  for (std::int64_t i = 0; i < network.parameter_count(); ++i) {
    const double kept = parameters[i];
    parameters[i] = kept + kStep;
    const double above = loss();
    parameters[i] = kept - kStep;
    const double below = loss();
    parameters[i] = kept;
    const double curvature = std::abs(above - 2.0 * base + below) / kStep;
    if (curvature > 0.01 * largest) {
      ++bends;
      continue;
    }
    worst = std::max(worst, std::abs((above - below) / (2.0 * kStep) - gradient[i]));
  }
  return worst / largest;
}

TEST(TrainGradient, NetworksAgreeWithDifferences) {
  for (const TrainKernels<double>& kernels : train_kernels<double>()) {
    if (kernels.device != DeviceKind::cpu) continue;
    for (const Case& c : cases()) {
      SCOPED_TRACE(fmt::format("{}: {}", kernels.name, c.name));
      std::int64_t bends = 0;
      const double error = worst_error(c, kernels, bends);
      RecordProperty(fmt::format("{} {}", kernels.name, c.name), fmt::format("{}", error));
      EXPECT_LT(error, 1e-6);
      EXPECT_LE(bends, 2);
    }
  }
}

}  // namespace
}  // namespace spdnn
