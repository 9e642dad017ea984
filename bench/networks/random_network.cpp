// Drawing random networks and finding the scale of their weights.
#include "networks/random_network.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <random>

namespace spdnn::bench {
namespace {

/// A standard normal number (Box and Muller), equal on every machine.
float draw_normal(std::mt19937_64& random) {
  const auto uniform = [&] { return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53; };
  const double radius = std::sqrt(-2.0 * std::log(uniform()));
  return static_cast<float>(radius * std::cos(2.0 * std::numbers::pi * uniform()));
}

/// `count` distinct columns below `cols`, ascending.
void draw_columns(std::int64_t count, std::int64_t cols, std::mt19937_64& random,
                  std::vector<std::uint32_t>& out) {
  const auto first = static_cast<std::ptrdiff_t>(out.size());
  while (std::ssize(out) - first < count) {
    while (std::ssize(out) - first < count) {
      out.push_back(static_cast<std::uint32_t>(random() % static_cast<std::uint64_t>(cols)));
    }
    std::sort(out.begin() + first, out.end());
    out.erase(std::unique(out.begin() + first, out.end()), out.end());
  }
}

const SpmmKernel<float>& first_cpu_kernel() {
  for (const SpmmKernel<float>& kernel : spmm_kernels<float>()) {
    if (kernel.device == DeviceKind::cpu) return kernel;
  }
  throw DeviceError("this build has no CPU kernel");
}

}  // namespace

RandomNetwork::RandomNetwork(const RandomNetworkSpec& spec) : spec_(spec) {
  std::mt19937_64 random(spec.seed);
  const std::int64_t most = std::min(spec.most_per_row, spec.neurons);
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    Pattern& pattern = layers_.emplace_back();
    pattern.row_offsets.push_back(0);
    for (std::int64_t row = 0; row < spec.neurons; ++row) {
      const auto count = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(most)) + 1;
      draw_columns(count, spec.neurons, random, pattern.col_indices);
      pattern.row_offsets.push_back(std::ssize(pattern.col_indices));
    }
    for (std::size_t k = 0; k < pattern.col_indices.size(); ++k) {
      pattern.values.push_back(draw_normal(random));
    }
  }
}

std::vector<Csr> RandomNetwork::scaled(float scale) const {
  std::vector<Csr> weights;
  for (const Pattern& pattern : layers_) {
    std::vector<float> values = pattern.values;
    for (float& value : values) value *= scale;
    weights.push_back(make_csr(spec_.neurons, spec_.neurons, pattern.row_offsets,
                               pattern.col_indices, std::move(values)));
  }
  return weights;
}

double share_alive(const std::vector<Csr>& weights, float bias, const Csr& images) {
  DeviceSpec spec;
  spec.threads = static_cast<int>(usable_cores().size());
  const std::unique_ptr<Device> device = open_device(spec);
  const std::unique_ptr<Stream> stream = device->make_stream();
  const SpmmKernel<float>& kernel = first_cpu_kernel();
  const std::int64_t width = panel_width(device->info());
  Panels<float> x = {nullptr, images.cols(), images.rows(), width, nullptr};
  Panels<float> y = x;
  const Buffer x_memory = device->allocate(static_cast<std::size_t>(x.size()) * sizeof(float));
  const Buffer y_memory = device->allocate(static_cast<std::size_t>(y.size()) * sizeof(float));
  x.data = x_memory.as<float>();
  y.data = y_memory.as<float>();
  layout_kernels<float>(DeviceKind::cpu).expand({images.view(), x}, *stream);
  std::vector<std::uint8_t> alive(static_cast<std::size_t>(images.rows()), 1);
  const Epilogue relu = {0.0F, std::numeric_limits<float>::infinity()};
  for (const Csr& layer : weights) {
    const PreparedWeights prepared = kernel.prepare(layer.view(), *device, *stream);
    kernel.run({&prepared, {&bias, 0}, relu, x, y, alive.data()}, *stream);
    std::swap(x, y);
  }
  const auto count = std::count(alive.begin(), alive.end(), std::uint8_t{1});
  return static_cast<double>(count) / static_cast<double>(std::max<std::int64_t>(images.rows(), 1));
}

float scale_for_half(const RandomNetwork& network, float bias, const Csr& images) {
  float dead = 0.01F;  // too small: nearly all images die
  float alive = 1.0F;
  for (int step = 0; step < 24; ++step) {
    const float middle = std::sqrt(dead * alive);
    const double share = share_alive(network.scaled(middle), bias, images);
    if (std::abs(share - 0.5) < 0.02) return middle;
    (share < 0.5 ? dead : alive) = middle;
  }
  return alive;
}

}  // namespace spdnn::bench
