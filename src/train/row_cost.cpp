// Forward, backward by data and by weights, of a slice of a layer.
#include "row_cost.hpp"

#include <algorithm>

namespace spdnn::train {
namespace {

/// Fewest panels that are timed together where there are as many: what a panel costs by itself must
/// not look like rows.
constexpr std::int64_t kPanels = 2;
/// More than the caches of a core hold.
constexpr std::int64_t kCaches = std::int64_t{16} << 20U;

}  // namespace

std::int64_t trial_images(const TrainLayer& layer, std::int64_t batch, const DeviceInfo& device) {
  const std::int64_t width = panel_width(device);
  const std::int64_t panel_bytes = 4 * width * (layer.inputs() + layer.outputs());
  const std::int64_t half = (batch + 2 * width - 1) / (2 * width);
  const std::int64_t fills = (kCaches + panel_bytes - 1) / panel_bytes;
  return std::min(half, std::max(fills, kPanels)) * width;
}

std::vector<std::int64_t> measured_units(const TrainLayer& layer) {
  std::vector<std::int64_t> units;
  if (std::holds_alternative<PoolForm>(layer.form)) return units;
  for (const std::int64_t part : row_parts) {
    const std::int64_t some = (layer.units() + part - 1) / part;
    if (some > 0 && (units.empty() || some > units.back())) units.push_back(some);
  }
  return units;
}

SliceTrial::SliceTrial(const TrainLayer& layer, std::int64_t units, std::int64_t images,
                       const TrainKernels<float>& kernels, Device& device)
    : slice_(layer.slice({0, units})),
      kernels_(kernels),
      device_(device),
      width_(panel_width(device.info())),
      images_(images),
      stream_(device.make_stream()),
      x_(zeros(slice_.inputs() * images_)),
      dx_(zeros(slice_.inputs() * images_)),
      y_(zeros(slice_.outputs() * images_)),
      dz_(zeros(slice_.outputs() * images_)),
      values_(zeros(slice_.pattern.nnz())),
      gradient_(zeros(slice_.pattern.nnz())),
      bias_(zeros(slice_.units())),
      bias_gradient_(zeros(slice_.units())),
      workspace_(zeros(slice_.workspace())),
      pattern_(slice_.pattern, device, *stream_) {}

Buffer SliceTrial::zeros(std::int64_t count) {
  const std::size_t bytes =
      static_cast<std::size_t>(std::max<std::int64_t>(count, 1)) * sizeof(float);
  Buffer buffer = device_.allocate(bytes);
  stream_->zero(buffer.data(), bytes);
  return buffer;
}

Panels<float> SliceTrial::inputs(const Buffer& buffer) const {
  return {buffer.as<float>(), slice_.inputs(), images_, width_, nullptr};
}

Panels<float> SliceTrial::outputs(const Buffer& buffer) const {
  return {buffer.as<float>(), slice_.outputs(), images_, width_, nullptr};
}

void SliceTrial::forward() {
  const LinearView<float> weights = {pattern_.view(), values_.as<float>(), bias_.as<float>()};
  train::forward<float>(slice_, kernels_, weights, inputs(x_), outputs(y_), *stream_);
  stream_->synchronize();
}

void SliceTrial::backward() {
  const LinearView<float> weights = {pattern_.view(), values_.as<float>(), bias_.as<float>()};
  backward_data<float>(slice_, kernels_, weights, outputs(dz_), slice_.activation, inputs(x_),
                       inputs(dx_), workspace_.as<float>(), *stream_);
  backward_weights<float>(slice_, kernels_, pattern_.view(), outputs(dz_), inputs(x_),
                          gradient_.as<float>(), bias_gradient_.as<float>(), *stream_);
  stream_->synchronize();
}

double measure_units(const TrainLayer& layer, std::int64_t units, std::int64_t images,
                     const TrainKernels<float>& kernels, Device& device, StepClock& clock) {
  SliceTrial trial(layer, units, images, kernels, device);
  const double seconds =
      clock.fastest([&] { trial.forward(); }) + clock.fastest([&] { trial.backward(); });
  return seconds / static_cast<double>(images);
}

}  // namespace spdnn::train
