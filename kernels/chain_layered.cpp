// layered: each layer of a chain by the first canonical SpMM kernel that takes it. Activations go
// through device memory between layers: 8 bytes for each feature and image, once for each layer.
#include "chain_layered.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace spdnn {
namespace {

const SpmmKernel<float>* kernel_for(SpmmShape shape, const DeviceInfo& device) {
  shape.panel_width = panel_width(device);
  for (const SpmmKernel<float>& kernel : spmm_kernels<float>()) {
    if (kernel.device == device.kind && kernel.order == Order::canonical &&
        !kernel.declines(shape, device)) {
      return &kernel;
    }
  }
  return nullptr;
}

std::optional<std::string> declines(std::span<const SpmmShape> layers, const DeviceInfo& device) {
  if (layers.empty()) return "there are no layers";
  for (std::size_t l = 0; l < layers.size(); ++l) {
    if (kernel_for(layers[l], device) == nullptr) {
      return fmt::format("no canonical kernel takes layer {} of the run", l + 1);
    }
  }
  return std::nullopt;
}

struct PreparedLayer {
  const SpmmKernel<float>* kernel = nullptr;
  PreparedWeights weights;
  BiasView<float> bias;
  Epilogue epilogue;
};

struct LayeredChain {
  DeviceKind device = DeviceKind::cpu;
  std::vector<PreparedLayer> layers;
  Buffer between[2];  ///< activations of every second layer
};

PreparedChain prepare(std::span<const ChainLayer<float>> layers, std::int64_t batch, Device& device,
                      Stream& stream) {
  auto chain = std::make_shared<LayeredChain>();
  chain->device = device.info().kind;
  const std::int64_t width = panel_width(device.info());
  std::int64_t features = 0;
  for (const ChainLayer<float>& layer : layers) {
    const SpmmKernel<float>* kernel =
        kernel_for(shape_of(layer.weights, batch, width), device.info());
    if (kernel == nullptr) {
      throw DeviceError(fmt::format("layered: no canonical kernel takes layer {} of the run",
                                    chain->layers.size() + 1));
    }
    chain->layers.push_back(
        {kernel, kernel->prepare(layer.weights, device, stream), layer.bias, layer.epilogue});
    features = std::max(features, layer.weights.rows);
  }
  const Panels<float> room = {nullptr, features, batch, width, nullptr};
  for (Buffer& buffer : chain->between) {
    buffer = device.allocate(static_cast<std::size_t>(room.size()) * sizeof(float));
  }
  return {std::move(chain)};
}

void run(const ChainArgs<float>& args, Stream& stream) {
  const auto& chain = *static_cast<const LayeredChain*>(args.chain->format.get());
  Panels<const float> x = args.x;
  for (std::size_t l = 0; l < chain.layers.size(); ++l) {
    const PreparedLayer& layer = chain.layers[l];
    const bool last = l + 1 == chain.layers.size();
    Panels<float> y = args.y;
    if (!last) {
      y = {chain.between[l % 2].as<float>(), layer.weights.csr.rows, x.batch, x.width, x.live};
    }
    layer.kernel->run(
        {&layer.weights, layer.bias, layer.epilogue, x, y, last ? args.alive : nullptr}, stream);
    if (last && args.unchanged != nullptr) {
      layout_kernels<float>(chain.device).find_unchanged({x, y, args.unchanged}, stream);
    }
    x = y;
  }
}

}  // namespace

ChainKernel<float> chain_layered(DeviceKind device) {
  return {"layered", device, Order::canonical, &declines, &prepare, &run};
}

}  // namespace spdnn
