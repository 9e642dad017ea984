// Forward, backward by data and by weights, of a slice of a layer.
#include "row_cost.hpp"

#include <algorithm>

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

SliceTrial::SliceTrial(const TrainLayer& layer, std::int64_t units,
                       const TrainKernels<float>& kernels, Device& device)
    : slice_(layer.slice({0, units})),
      kernels_(kernels),
      device_(device),
      width_(panel_width(device.info())),
      images_(kPanels * width_),
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

void SliceTrial::run() {
  const LinearView<float> weights = {pattern_.view(), values_.as<float>(), bias_.as<float>()};
  forward<float>(slice_, kernels_, weights, inputs(x_), outputs(y_), *stream_);
  backward_data<float>(slice_, kernels_, weights, outputs(dz_), slice_.activation, inputs(x_),
                       inputs(dx_), workspace_.as<float>(), *stream_);
  backward_weights<float>(slice_, kernels_, pattern_.view(), outputs(dz_), inputs(x_),
                          gradient_.as<float>(), bias_gradient_.as<float>(), *stream_);
  stream_->synchronize();
}

double measure_units(const TrainLayer& layer, std::int64_t units,
                     const TrainKernels<float>& kernels, Device& device, StepClock& clock) {
  SliceTrial trial(layer, units, kernels, device);
  return clock.fastest([&] { trial.run(); }) / static_cast<double>(trial.images());
}

}  // namespace spdnn::train
