// Resident and streamed weights of one rank.
#include "weights.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace spdnn {

namespace {

template <class Kernel>
const Kernel& find_kernel(std::initializer_list<std::span<const Kernel>> tables,
                          const std::string& name, DeviceKind kind) {
  for (const std::span<const Kernel> table : tables) {
    for (const Kernel& kernel : table) {
      if (kernel.device == kind && kernel.name == name) return kernel;
    }
  }
  throw DeviceError(fmt::format("the plan names kernel '{}', which this build lacks", name));
}

}  // namespace

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

DeviceWeights::DeviceWeights(const Model& model, const Plan& plan, int rank,
                             std::int64_t most_images, SharedForms& shared, Device& device,
                             Stream& stream)
    : model_(model),
      plan_(plan),
      chains_(plan.segments.size()),
      chained_(model.layers.size()),
      most_images_(most_images),
      stream_layers_(plan.stream_weights[rank]),
      shared_(shared),
      device_(device),
      stream_(stream) {
  const DeviceKind kind = device.info().kind;
  for (std::size_t s = 0; s < plan.segments.size(); ++s) {
    const Segment& segment = plan.segments[s];
    for (const std::string& name : segment.kernels[rank]) {
      kernels_.push_back(&find_kernel<SpmmKernel<float>>(
          {spmm_kernels<float>(), window_kernels<float>()}, name, kind));
    }
    if (segment.chains[rank].empty()) continue;
    chains_[s].kernel =
        &find_kernel<ChainKernel<float>>({chain_kernels<float>()}, segment.chains[rank], kind);
    std::fill_n(chained_.begin() + segment.first, segment.count, true);
  }
  if (stream_layers_ && kind != DeviceKind::cpu) staged_.emplace(model, device, stream);
}

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
  upload_chains();
  const auto layers = std::ssize(model_.layers);
  resident_.resize(model_.layers.size());
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::int64_t l = (first + i) % layers;
    if (chained_[l]) continue;
    if (device_.info().kind == DeviceKind::cpu) {
      resident_[l] = &shared_.get(l, *kernels_[l], device_, stream_);
    } else {
      resident_[l] = &owned_.emplace_back(kernels_[l]->prepare(host(l).view(), device_, stream_));
    }
  }
}

void DeviceWeights::upload_chains() {
  for (std::size_t s = 0; s < chains_.size(); ++s) {
    if (chains_[s].kernel == nullptr) continue;
    const Segment& segment = plan_.segments[s];
    std::vector<ChainLayer<float>> layers;
    for (std::int64_t l = segment.first; l < segment.first + segment.count; ++l) {
      layers.push_back({host(l).view(), bias(l), layer_activation(model_.layers[l])});
    }
    chains_[s].prepared = chains_[s].kernel->prepare(layers, most_images_, device_, stream_);
  }
}

bool DeviceWeights::is_staged(std::int64_t index) const {
  return staged_.has_value() && kernels_[index]->stages;
}

void DeviceWeights::used(std::int64_t index) {
  if (!staged_) return;
  staged_->release(index);
  const std::int64_t next = index + 1;
  if (next < std::ssize(model_.layers) && is_staged(next)) staged_->fetch(next, *kernels_[next]);
}

const PreparedWeights& DeviceWeights::layer(std::int64_t index) {
  if (!stream_layers_) return *resident_[index];
  if (is_staged(index)) return staged_->get(index, *kernels_[index]);
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
