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
                       const TrainKernels<float>& kernels, Precision stored, Device& device)
    : slice_(layer.slice({0, units})),
      kernels_(kernels),
      stored_(stored),
      device_(device),
      width_(panel_width(device.info())),
      images_(images),
      stream_(device.make_stream()),
      x_(zeros(slice_.inputs() * images_)),
      dx_(zeros(slice_.inputs() * images_)),
      y_(zeros(slice_.outputs() * images_)),
      dz_(zeros(slice_.outputs() * images_)),
      values_(zeros(slice_.pattern.nnz())),
      gradient_(wide_zeros(slice_.pattern.nnz())),
      bias_(wide_zeros(slice_.units())),
      bias_gradient_(wide_zeros(slice_.units())),
      workspace_(zeros(slice_.workspace())),
      pattern_(slice_.pattern, device, *stream_) {}

Buffer SliceTrial::zeros(std::int64_t count, std::int64_t each) {
  const auto bytes = static_cast<std::size_t>(std::max<std::int64_t>(count, 1) * each);
  Buffer buffer = device_.allocate(bytes);
  stream_->zero(buffer.data(), bytes);
  return buffer;
}

template <class Use>
void SliceTrial::with_kernels(const Use& use) {
  const DeviceKind kind = device_.info().kind;
  switch (stored_) {
    case Precision::bf16: use(narrow_kernels<Bfloat16>(kind)); break;
    case Precision::fp16: use(narrow_kernels<Half>(kind)); break;
    default: use(kernels_);
  }
  stream_->synchronize();
}

template <class T>
LinearView<T> SliceTrial::weights() const {
  return {pattern_.view(), values_.as<T>(), bias_.as<Wide<T>>()};
}

template <class T>
Panels<T> SliceTrial::inputs(const Buffer& buffer) const {
  return {buffer.as<T>(), slice_.inputs(), images_, width_, nullptr};
}

template <class T>
Panels<T> SliceTrial::outputs(const Buffer& buffer) const {
  return {buffer.as<T>(), slice_.outputs(), images_, width_, nullptr};
}

void SliceTrial::forward() {
  with_kernels([&]<class T>(const TrainKernels<T>& kernels) {
    train::forward<T>(slice_, kernels, weights<T>(), inputs<T>(x_), outputs<T>(y_), *stream_);
  });
}

void SliceTrial::backward() {
  with_kernels([&]<class T>(const TrainKernels<T>& kernels) {
    backward_data<T>(slice_, kernels, weights<T>(), outputs<T>(dz_), slice_.activation,
                     inputs<T>(x_), inputs<T>(dx_), workspace_.as<T>(), *stream_);
    backward_weights<T>(slice_, kernels, pattern_.view(), outputs<T>(dz_), inputs<T>(x_),
                        {gradient_.as<Wide<T>>(), bias_gradient_.as<Wide<T>>()}, *stream_);
  });
}

double measure_units(const TrainLayer& layer, std::int64_t units, std::int64_t images,
                     const TrainKernels<float>& kernels, Precision stored, Device& device,
                     StepClock& clock) {
  SliceTrial trial(layer, units, images, kernels, stored, device);
  const double seconds =
      clock.fastest([&] { trial.forward(); }) + clock.fastest([&] { trial.backward(); });
  return seconds / static_cast<double>(images);
}

}  // namespace spdnn::train
