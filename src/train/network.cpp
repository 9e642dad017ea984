// Parameters of a network in one array.
#include "network.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "spdnn/random.hpp"

namespace spdnn::train {
namespace {

template <class T>
Buffer allocate(Device& device, std::int64_t count) {
  return device.allocate(static_cast<std::size_t>(count) * sizeof(T));
}

}  // namespace

void check_widths(const std::vector<TrainLayer>& layers) {
  for (std::size_t l = 1; l < layers.size(); ++l) {
    if (layers[l].inputs() != layers[l - 1].outputs()) {
      throw InputError(fmt::format("layer {} takes {} inputs, but layer {} has {} outputs", l + 1,
                                   layers[l].inputs(), l, layers[l - 1].outputs()));
    }
  }
}

template <class T>
Network<T>::Network(std::vector<TrainLayer> layers, const TrainKernels<T>& kernels, Device& device,
                    Stream& stream)
    : layers_(std::move(layers)), kernels_(&kernels), device_(&device), stream_(&stream) {
  if (layers_.empty()) throw InputError("a network to train has no layer; give at least 1");
  for (const TrainLayer& layer : layers_) {
    value_begin_.push_back(value_count_);
    value_count_ += layer.pattern.nnz();
  }
  parameter_count_ = value_count_;
  for (const TrainLayer& layer : layers_) {
    bias_begin_.push_back(parameter_count_);
    parameter_count_ += layer.pattern.rows();
  }
  parameters_ = allocate<T>(device, parameter_count_);
  gradient_ = allocate<T>(device, parameter_count_);
  for (const TrainLayer& layer : layers_) patterns_.emplace_back(layer.pattern, device, stream);
  stream.synchronize();
}

template <class T>
Range Network<T>::values_of(std::size_t layer) const {
  return {value_begin_[layer], value_begin_[layer] + layers_[layer].pattern.nnz()};
}

template <class T>
Range Network<T>::biases_of(std::size_t layer) const {
  return {bias_begin_[layer], bias_begin_[layer] + layers_[layer].pattern.rows()};
}

template <class T>
LinearView<T> Network<T>::view(std::size_t layer) const {
  return {patterns_[layer].view(), parameters() + value_begin_[layer],
          parameters() + bias_begin_[layer]};
}

template <class T>
const Pattern& Network<T>::pattern(std::size_t layer) const {
  Pattern& pattern = layers_[layer].pattern;
  if (!pattern.is_known()) patterns_[layer].fetch(pattern, *stream_);
  return pattern;
}

template <class T>
const PatternArrays& Network<T>::change_pattern(std::size_t layer) {
  layers_[layer].pattern.forget();
  return patterns_[layer].arrays();
}

template <class T>
void Network<T>::replace_pattern(std::size_t layer, std::vector<std::int64_t> row_offsets,
                                 std::vector<std::uint32_t> col_indices) {
  Pattern& pattern = layers_[layer].pattern;
  pattern.replace(std::move(row_offsets), std::move(col_indices));
  patterns_[layer].store(pattern, *stream_);
  stream_->synchronize();
}

template <class T>
std::int64_t Network<T>::device_csr_bytes() const {
  std::int64_t bytes = 0;
  for (const DevicePattern& pattern : patterns_) bytes += pattern.csr_bytes();
  return bytes;
}

template <class T>
std::int64_t Network<T>::device_csc_bytes() const {
  std::int64_t bytes = 0;
  for (const DevicePattern& pattern : patterns_) bytes += pattern.csc_bytes();
  return bytes;
}

template <class T>
std::vector<T> draw_values(const TrainLayer& layer, std::uint64_t seed, std::size_t number) {
  Random random(seed, number);
  const Pattern& pattern = layer.pattern;
  std::vector<T> values;
  values.reserve(static_cast<std::size_t>(pattern.nnz()));
  // A ReLU halves the variance; the outputs of a layer without one keep it.
  const double gain = layer.activation.lower == 0.0F ? 2.0 : 1.0;
  for (std::int64_t row = 0; row < pattern.rows(); ++row) {
    const std::int64_t fan_in = pattern.fan_in(row);
    const double bound =
        std::sqrt(3.0 * gain / static_cast<double>(std::max<std::int64_t>(fan_in, 1)));
    for (std::int64_t k = 0; k < fan_in; ++k) {
      values.push_back(static_cast<T>(random.between(-bound, bound)));
    }
  }
  return values;
}

template <class T>
void Network<T>::initialize(std::uint64_t seed) {
  stream_->zero(parameters(), static_cast<std::size_t>(parameter_count_) * sizeof(T));
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const std::vector<T> values = draw_values<T>(layers_[l], seed, l);
    stream_->copy(parameters() + value_begin_[l], values.data(), values.size() * sizeof(T));
    stream_->synchronize();
  }
}

template std::vector<float> draw_values(const TrainLayer&, std::uint64_t, std::size_t);
template std::vector<double> draw_values(const TrainLayer&, std::uint64_t, std::size_t);
template class Network<float>;
template class Network<double>;

}  // namespace spdnn::train
