// A rank's weights on its device: all of them resident, or one layer at a time.
#pragma once

#include <vector>

#include "spdnn/plan.hpp"

namespace spdnn {

/// The weights and biases of a model for one rank, each layer in its kernel's form.
class DeviceWeights {
 public:
  /// `kernels[layer]` prepares and runs the layer.
  DeviceWeights(const Model& model, std::vector<const SpmmKernel<float>*> kernels, bool stream_layers,
                Device& device, Stream& stream);
  /// Uploads the biases, and the weights when they are resident.
  void upload();
  /// The layer's weights; when layers are streamed, they stay valid until the next call, and the
  /// layer before is given back.
  [[nodiscard]] const PreparedWeights& layer(std::int64_t index);
  [[nodiscard]] BiasView<float> bias(std::int64_t index) const;
  [[nodiscard]] const SpmmKernel<float>& kernel(std::int64_t index) const { return *kernels_[index]; }

 private:
  [[nodiscard]] const Csr& host(std::int64_t index) const;
  const Model& model_;
  std::vector<const SpmmKernel<float>*> kernels_;
  bool stream_layers_;
  Device& device_;
  Stream& stream_;
  std::vector<PreparedWeights> resident_;
  PreparedWeights window_;
  std::int64_t window_layer_ = -1;
  Buffer biases_;
  std::vector<std::int64_t> bias_offsets_;
  std::vector<float> host_biases_;
};

}  // namespace spdnn
