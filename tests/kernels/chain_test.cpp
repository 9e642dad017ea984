// Runs of layers: every chain kernel of the table × devices × runs, bit for bit.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>

#include "support/chains.hpp"
#include "support/devices.hpp"

namespace spdnn {
namespace {

using test::ChainProblem;
using test::ChainSpec;
using test::Rows;

constexpr float kUntouched = -77.0F;

std::vector<ChainSpec> specs() {
  std::vector<ChainSpec> all;
  for (const bool shared : {false, true}) {
    for (const std::int64_t batch : {0, 1, 31, 64, 65, 200}) {
      all.push_back({{40, 50, 33}, 9, Rows::grouped, shared, batch, -1});
    }
    for (const std::int64_t live : {0, 1, 64, 97}) {
      all.push_back({{64, 64, 64, 64}, 20, Rows::irregular, shared, 130, live});
    }
    all.push_back({{1000, 1024, 1024}, 32, Rows::grouped, shared, 70, -1});
    all.push_back({{3, 1, 300}, 2, Rows::equal, shared, 40, -1});
    all.push_back({{20, 70000, 20}, 5, Rows::equal, shared, 40, -1});
  }
  all.push_back({{17, 9}, 0, Rows::empty, false, 40, -1});
  return all;
}

/// Holds the flags of images that the last layer left as they were against plain sums.
void check_unchanged(const ChainSpec& spec, const ChainProblem& problem,
                     const std::vector<std::uint8_t>& unchanged) {
  for (std::int64_t i = 0; i < problem.images(); ++i) {
    const std::vector<float> before = problem.after(problem.layers() - 1, i);
    const std::vector<float> after = problem.after(problem.layers(), i);
    const bool equal = std::memcmp(before.data(), after.data(), after.size() * sizeof(float)) == 0;
    ASSERT_EQ(unchanged[i], equal ? 1 : 0) << "image " << i;
  }
  for (std::int64_t i = problem.images(); i < spec.batch; ++i) ASSERT_EQ(unchanged[i], 0) << i;
}

void run_spec(const ChainSpec& spec, const ChainKernel<float>& kernel, Device& device,
              Stream& stream, std::uint64_t seed) {
  const std::int64_t width = panel_width(device.info());
  const ChainProblem problem(spec, width, seed);
  std::vector<SpmmShape> shapes;
  std::vector<ChainLayer<float>> layers;
  std::vector<test::DeviceArray<float>> biases;
  for (std::int64_t l = 0; l < problem.layers(); ++l) {
    biases.emplace_back(problem.bias[l], device, stream);
    layers.push_back(problem.layer(l, biases.back().data()));
    shapes.push_back(shape_of(layers.back().weights, spec.batch, width));
  }
  if (kernel.declines(shapes, device.info())) return;
  const std::int64_t features = spec.widths.back();
  const test::DeviceArray<float> x(problem.x, device, stream);
  const test::DeviceArray<float> y(
      std::vector<float>(static_cast<std::size_t>(problem.panels(features)), kUntouched), device,
      stream);
  const test::DeviceArray<std::uint8_t> alive(
      std::vector<std::uint8_t>(static_cast<std::size_t>(spec.batch + width), 9), device, stream);
  const test::DeviceArray<std::uint8_t> unchanged(
      std::vector<std::uint8_t>(static_cast<std::size_t>(spec.batch + width), 9), device, stream);
  const bool square = features == spec.widths[spec.widths.size() - 2];
  const test::DeviceArray<std::int32_t> live({problem.live}, device, stream);
  const std::int32_t* count = spec.live < 0 ? nullptr : live.data();
  const PreparedChain chain = kernel.prepare(layers, spec.batch, device, stream);
  kernel.run({&chain,
              {x.data(), spec.widths.front(), spec.batch, width, count},
              {y.data(), features, spec.batch, width, count},
              alive.data(),
              square ? unchanged.data() : nullptr},
             stream);
  stream.synchronize();
  problem.check(y.read(), alive.read(), kUntouched);
  if (square) check_unchanged(spec, problem, unchanged.read());
}

TEST(Chain, EveryKernelOnEveryRunGivesCanonicalOutputs) {
  for (const DeviceSpec& device_spec : test::tested_devices()) {
    const std::unique_ptr<Device> device = open_device(device_spec);
    const std::unique_ptr<Stream> stream = device->make_stream();
    for (const ChainKernel<float>& kernel : chain_kernels<float>()) {
      if (kernel.device != device_spec.kind) continue;
      ASSERT_EQ(kernel.order, Order::canonical);
      std::uint64_t seed = 1;
      for (const ChainSpec& spec : specs()) {
        SCOPED_TRACE(fmt::format("{} on {}, run {}", kernel.name, device->info().name, seed));
        run_spec(spec, kernel, *device, *stream, seed++);
        if (HasFatalFailure()) return;
      }
    }
  }
}

/// Layers that pass their inputs on, clipped: at 1 first, and lower at the end, which changes some
/// images in one feature.
void check_clipped(std::int64_t layers, const ChainKernel<float>& kernel, Device& device,
                   Stream& stream) {
  constexpr std::int64_t kFeatures = 5;
  constexpr std::int64_t kBatch = 150;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::int64_t width = panel_width(device.info());
  const Csr identity = make_csr(kFeatures, kFeatures, {0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4}, {1.0F});
  std::mt19937_64 random(3);
  Panels<float> x = {nullptr, kFeatures, kBatch, width, nullptr};
  std::vector<float> inputs = test::random_floats(static_cast<std::size_t>(x.size()), random);
  x.data = inputs.data();
  std::vector<std::uint8_t> expected;
  for (std::int64_t i = 0; i < kBatch; ++i) {
    bool passes = false;
    for (std::int64_t f = 0; f < kFeatures; ++f) passes = passes || x.at(f, i) > 0.75F;
    expected.push_back(passes ? 0 : 1);
  }
  const test::DeviceArray<float> from(inputs, device, stream);
  const test::DeviceArray<float> to(inputs, device, stream);
  const test::DeviceArray<float> bias({0.0F}, device, stream);
  const test::DeviceArray<std::uint8_t> unchanged(std::vector<std::uint8_t>(kBatch, 9), device,
                                                  stream);
  const ChainLayer<float> layer = {identity.view(), {bias.data(), 0}, {-kInfinity, 1.0F}};
  std::vector<ChainLayer<float>> chain(static_cast<std::size_t>(layers), layer);
  chain.back().epilogue.upper = 0.75F;
  const PreparedChain prepared = kernel.prepare(chain, kBatch, device, stream);
  kernel.run({&prepared,
              {from.data(), kFeatures, kBatch, width, nullptr},
              {to.data(), kFeatures, kBatch, width, nullptr},
              nullptr,
              unchanged.data()},
             stream);
  EXPECT_EQ(unchanged.read(), expected) << layers << " layers";
}

TEST(Chain, TellsWhichImagesTheLastLayerLeftAsTheyWere) {
  for (const DeviceSpec& device_spec : test::tested_devices()) {
    const std::unique_ptr<Device> device = open_device(device_spec);
    const std::unique_ptr<Stream> stream = device->make_stream();
    for (const ChainKernel<float>& kernel : chain_kernels<float>()) {
      if (kernel.device != device_spec.kind) continue;
      SCOPED_TRACE(fmt::format("{} on {}", kernel.name, device->info().name));
      for (const std::int64_t layers : {2, 3}) check_clipped(layers, kernel, *device, *stream);
    }
  }
}

TEST(Chain, AnEmptyRunIsDeclined) {
  for (const ChainKernel<float>& kernel : chain_kernels<float>()) {
    DeviceInfo device;
    device.kind = kernel.device;
    EXPECT_TRUE(kernel.declines({}, device)) << kernel.name;
  }
}

}  // namespace
}  // namespace spdnn
