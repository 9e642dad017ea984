// Resident and streamed weights of one rank.
#include "weights.hpp"

namespace spdnn {

const PreparedWeights& SharedForms::get(std::int64_t index, const SpmmKernel<float>& kernel,
                                        Device& device, Stream& stream) {
  Form* form = nullptr;
  {
    const std::lock_guard lock(mutex_);
    form = &forms_.try_emplace(&kernel, model_.layers.size()).first->second[index];
  }
  std::call_once(form->made, [&] {
    const CsrView& host = layer_weights(model_.layers[index]).view();
    form->weights = kernel.prepare(host, device, stream);
  });
  return form->weights;
}

DeviceWeights::DeviceWeights(const Model& model, std::vector<const SpmmKernel<float>*> kernels,
                             bool stream_layers, SharedForms& shared, Device& device,
                             Stream& stream)
    : model_(model),
      kernels_(std::move(kernels)),
      stream_layers_(stream_layers),
      shared_(shared),
      device_(device),
      stream_(stream) {}

const Csr& DeviceWeights::host(std::int64_t index) const {
  return layer_weights(model_.layers[index]);
}

void DeviceWeights::upload(std::int64_t first) {
  for (const Layer& layer : model_.layers) {
    const std::vector<float>& bias = layer_bias(layer);
    bias_offsets_.push_back(std::ssize(host_biases_));
    host_biases_.insert(host_biases_.end(), bias.begin(), bias.end());
  }
  biases_ = device_.allocate(host_biases_.size() * sizeof(float));
  stream_.copy(biases_.data(), host_biases_.data(), host_biases_.size() * sizeof(float));
  if (stream_layers_) return;
  const auto layers = std::ssize(model_.layers);
  resident_.resize(model_.layers.size());
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::int64_t l = (first + i) % layers;
    if (device_.info().kind == DeviceKind::cpu) {
      resident_[l] = &shared_.get(l, *kernels_[l], device_, stream_);
    } else {
      resident_[l] = &owned_.emplace_back(kernels_[l]->prepare(host(l).view(), device_, stream_));
    }
  }
}

const PreparedWeights& DeviceWeights::layer(std::int64_t index) {
  if (!stream_layers_) return *resident_[index];
  if (window_layer_ != index) {
    if (window_layer_ >= 0) {
      stream_.synchronize();  // the layer before must be done with its weights
      window_ = {};
      if (const Storage* storage = host(window_layer_).storage()) storage->release();
    }
    // Again, though this layer was asked for before: it says so where the file was cut since then.
    if (const Storage* storage = host(index).storage()) storage->prefetch();
    window_ = kernels_[index]->prepare(host(index).view(), device_, stream_);
    window_layer_ = index;
    if (index + 1 < std::ssize(model_.layers)) {
      if (const Storage* storage = host(index + 1).storage()) storage->prefetch();
    }
  }
  return window_;
}

BiasView<float> DeviceWeights::bias(std::int64_t index) const {
  const std::size_t count = layer_bias(model_.layers[index]).size();
  return {biases_.as<float>() + bias_offsets_[index], count == 1 ? 0 : 1};
}

}  // namespace spdnn
