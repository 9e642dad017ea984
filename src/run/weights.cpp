// Resident and streamed weights of one rank.
#include "weights.hpp"

namespace spdnn {

DeviceWeights::DeviceWeights(const Model& model, std::vector<const SpmmKernel<float>*> kernels,
                             bool stream_layers, Device& device, Stream& stream)
    : model_(model),
      kernels_(std::move(kernels)),
      stream_layers_(stream_layers),
      device_(device),
      stream_(stream) {}

const Csr& DeviceWeights::host(std::int64_t index) const {
  return std::get<SparseLinear>(model_.layers[index]).weights;
}

void DeviceWeights::upload() {
  for (const Layer& layer : model_.layers) {
    const std::vector<float>& bias = std::get<SparseLinear>(layer).bias;
    bias_offsets_.push_back(std::ssize(host_biases_));
    host_biases_.insert(host_biases_.end(), bias.begin(), bias.end());
  }
  biases_ = device_.allocate(host_biases_.size() * sizeof(float));
  stream_.copy(biases_.data(), host_biases_.data(), host_biases_.size() * sizeof(float));
  if (stream_layers_) return;
  for (std::int64_t l = 0; l < std::ssize(model_.layers); ++l) {
    resident_.push_back(kernels_[l]->prepare(host(l).view(), device_, stream_));
  }
}

const PreparedWeights& DeviceWeights::layer(std::int64_t index) {
  if (!stream_layers_) return resident_[index];
  if (window_layer_ != index) {
    if (window_layer_ >= 0) {
      stream_.synchronize();  // the layer before must be done with its weights
      window_ = {};
      if (const Storage* storage = host(window_layer_).storage()) storage->release();
    }
    window_ = kernels_[index]->prepare(host(index).view(), device_, stream_);
    window_layer_ = index;
    if (index + 1 < std::ssize(model_.layers)) {
      if (const Storage* storage = host(index + 1).storage()) storage->prefetch();
    }
  }
  return window_;
}

BiasView<float> DeviceWeights::bias(std::int64_t index) const {
  const std::size_t count = std::get<SparseLinear>(model_.layers[index]).bias.size();
  return {biases_.as<float>() + bias_offsets_[index], count == 1 ? 0 : 1};
}

}  // namespace spdnn
