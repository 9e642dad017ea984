// A slice of a layer on made-up images: forward, backward by data and by weights.
#include "row_cost.hpp"

#include <algorithm>

#include "device_pattern.hpp"

namespace spdnn::train {
namespace {

/// Fewest images that are timed together: what a panel costs by itself must not look like rows.
constexpr std::int64_t kPanels = 2;

}  // namespace

std::vector<std::int64_t> measured_units(const TrainLayer& layer) {
  std::vector<std::int64_t> units;
  if (std::holds_alternative<PoolForm>(layer.form)) return units;
  for (const std::int64_t part : row_parts) {
    const std::int64_t some = (layer.units() + part - 1) / part;
    if (some > 0 && (units.empty() || some > units.back())) units.push_back(some);
  }
  return units;
}

double measure_units(const TrainLayer& layer, std::int64_t units,
                     const TrainKernels<float>& kernels, Device& device, StepClock& clock) {
  const TrainLayer slice = layer.slice({0, units});
  const std::int64_t width = panel_width(device.info());
  const std::int64_t images = kPanels * width;
  const std::unique_ptr<Stream> stream = device.make_stream();
  const auto zeros = [&](std::int64_t count) {
    const std::size_t bytes =
        static_cast<std::size_t>(std::max<std::int64_t>(count, 1)) * sizeof(float);
    Buffer buffer = device.allocate(bytes);
    stream->zero(buffer.data(), bytes);
    return buffer;
  };
  const Buffer x = zeros(slice.inputs() * images);
  const Buffer dx = zeros(slice.inputs() * images);
  const Buffer y = zeros(slice.outputs() * images);
  const Buffer dz = zeros(slice.outputs() * images);
  const Buffer values = zeros(slice.pattern.nnz());
  const Buffer gradient = zeros(slice.pattern.nnz());
  const Buffer bias = zeros(slice.units());
  const Buffer bias_gradient = zeros(slice.units());
  const Buffer workspace = zeros(slice.workspace());
  const auto inputs = [&](const Buffer& buffer) {
    return Panels<float>{buffer.as<float>(), slice.inputs(), images, width, nullptr};
  };
  const auto outputs = [&](const Buffer& buffer) {
    return Panels<float>{buffer.as<float>(), slice.outputs(), images, width, nullptr};
  };
  const DevicePattern pattern(slice.pattern, device, *stream);
  const LinearView<float> weights = {pattern.view(), values.as<float>(), bias.as<float>()};
  const double seconds = clock.fastest([&] {
    forward<float>(slice, kernels, weights, inputs(x), outputs(y), *stream);
    backward_data<float>(slice, kernels, weights, outputs(dz), layer.activation, inputs(x),
                         inputs(dx), workspace.as<float>(), *stream);
    backward_weights<float>(slice, kernels, pattern.view(), outputs(dz), inputs(x),
                            gradient.as<float>(), bias_gradient.as<float>(), *stream);
    stream->synchronize();
  });
  return seconds / static_cast<double>(images);
}

}  // namespace spdnn::train
