// Parameters of a network in one array, and a batch's way forward and back.
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

std::int64_t bytes_of(const Buffer& buffer) { return static_cast<std::int64_t>(buffer.bytes()); }

std::int64_t round_up(std::int64_t count, std::int64_t width) {
  return (count + width - 1) / width * width;
}

}  // namespace

template <class T>
Network<T>::Network(std::vector<TrainLayer> layers, const TrainKernels<T>& kernels, Device& device,
                    Stream& stream)
    : layers_(std::move(layers)), kernels_(&kernels), device_(&device), stream_(&stream) {
  if (layers_.empty()) throw InputError("a network to train has no layer; give at least 1");
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    if (l > 0 && layers_[l].inputs() != layers_[l - 1].outputs()) {
      throw InputError(fmt::format("layer {} takes {} inputs, but layer {} has {} outputs", l + 1,
                                   layers_[l].inputs(), l, layers_[l - 1].outputs()));
    }
    value_begin_.push_back(value_count_);
    value_count_ += layers_[l].pattern.nnz();
  }
  parameter_count_ = value_count_;
  for (const TrainLayer& layer : layers_) {
    bias_begin_.push_back(parameter_count_);
    parameter_count_ += layer.pattern.rows();
  }
  parameters_ = allocate<T>(device, parameter_count_);
  gradient_ = allocate<T>(device, parameter_count_);
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
  return {layers_[layer].pattern.view(), parameters() + value_begin_[layer],
          parameters() + bias_begin_[layer]};
}

template <class T>
void Network<T>::initialize(std::uint64_t seed) {
  std::vector<T> drawn(static_cast<std::size_t>(parameter_count_));
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    Random random(seed, l);
    const Pattern& pattern = layers_[l].pattern;
    // A ReLU halves the variance; the outputs of a layer without one keep it.
    const double gain = layers_[l].activation.lower == 0.0F ? 2.0 : 1.0;
    auto value = drawn.begin() + value_begin_[l];
    for (std::int64_t row = 0; row < pattern.rows(); ++row) {
      const std::int64_t fan_in = pattern.fan_in(row);
      const double bound =
          std::sqrt(3.0 * gain / static_cast<double>(std::max<std::int64_t>(fan_in, 1)));
      for (std::int64_t k = 0; k < fan_in; ++k) {
        *value++ = static_cast<T>(random.between(-bound, bound));
      }
    }
  }
  stream_->copy(parameters(), drawn.data(), drawn.size() * sizeof(T));
  stream_->synchronize();
}

template <class T>
void Network<T>::replace_pattern(std::size_t layer, std::vector<std::int64_t> row_offsets,
                                 std::vector<std::uint32_t> col_indices) {
  Pattern& pattern = layers_[layer].pattern;
  if (std::ssize(col_indices) != pattern.nnz()) {
    throw InputError(fmt::format("layer {} has {} connections and can't be given {}", layer + 1,
                                 pattern.nnz(), col_indices.size()));
  }
  pattern.replace(std::move(row_offsets), std::move(col_indices));
}

template <class T>
BatchPass<T>::BatchPass(Network<T>& network, std::int64_t most_images)
    : network_(network), width_(panel_width(network.device().info())) {
  const std::int64_t lanes = round_up(most_images, width_);
  std::int64_t widest = 0;
  std::int64_t most_values = 0;
  for (const TrainLayer& layer : network.layers()) {
    widest = std::max(widest, layer.outputs());
    most_values = std::max(most_values, layer.workspace());
  }
  Device& device = network.device();
  for (const TrainLayer& layer : network.layers()) {
    activations_.push_back(allocate<T>(device, layer.outputs() * lanes));
  }
  for (Buffer& delta : deltas_) delta = allocate<T>(device, widest * lanes);
  workspace_ = allocate<T>(device, most_values);
}

template <class T>
Panels<T> BatchPass<T>::output_of(std::size_t layer) const {
  const Buffer& buffer = activations_[layer];
  return {buffer.template as<T>(), network_.layers()[layer].outputs(), x_.batch, width_, nullptr};
}

template <class T>
Panels<const T> BatchPass<T>::input_of(std::size_t layer) const {
  return layer == 0 ? x_ : output_of(layer - 1);
}

template <class T>
Panels<T> BatchPass<T>::delta(int which, std::int64_t features) const {
  return {deltas_[which].template as<T>(), features, x_.batch, width_, nullptr};
}

template <class T>
Panels<const T> BatchPass<T>::forward(const Panels<const T>& x) {
  x_ = x;
  const std::size_t layers = network_.layers().size();
  for (std::size_t l = 0; l < layers; ++l) {
    train::forward(network_.layers()[l], network_.kernels(), network_.view(l), input_of(l),
                   output_of(l), network_.stream());
  }
  return output_of(layers - 1);
}

template <class T>
double BatchPass<T>::loss(Loss loss, const std::int32_t* labels, T scale,
                          std::int32_t* predictions) {
  const std::size_t last = network_.layers().size() - 1;
  double sum = 0.0;
  LossArgs<T> args;
  args.loss = loss;
  args.activation = network_.layers()[last].activation;
  args.y = output_of(last);
  args.labels = labels;
  args.scale = scale;
  args.dz = delta(static_cast<int>(last % 2), network_.outputs());
  args.loss_sum = &sum;
  args.predictions = predictions;
  network_.kernels().loss(args, network_.stream());
  return sum;
}

template <class T>
void BatchPass<T>::backward(const Visit& visit) {
  for (std::size_t l = network_.layers().size(); l-- > 0;) {
    const TrainLayer& layer = network_.layers()[l];
    const Panels<const T> x = input_of(l);
    const Panels<const T> dz = delta(static_cast<int>(l % 2), layer.outputs());
    T* gradient = network_.gradient();
    train::backward_weights(layer, network_.kernels(), layer.pattern.view(), dz, x,
                            gradient + network_.values_of(l).begin,
                            gradient + network_.biases_of(l).begin, network_.stream());
    if (visit) visit(l, dz, x);
    if (l == 0) break;
    train::backward_data(layer, network_.kernels(), network_.view(l), dz,
                         network_.layers()[l - 1].activation, x,
                         delta(static_cast<int>((l - 1) % 2), layer.inputs()),
                         workspace_.template as<T>(), network_.stream());
  }
}

template <class T>
std::int64_t BatchPass<T>::activation_bytes() const {
  std::int64_t bytes = 0;
  for (const Buffer& buffer : activations_) bytes += bytes_of(buffer);
  return bytes;
}

template <class T>
std::int64_t BatchPass<T>::delta_bytes() const {
  return bytes_of(deltas_[0]) + bytes_of(deltas_[1]);
}

template <class T>
std::int64_t BatchPass<T>::workspace_bytes() const {
  return bytes_of(workspace_);
}

template class Network<float>;
template class Network<double>;
template class BatchPass<float>;
template class BatchPass<double>;

}  // namespace spdnn::train
