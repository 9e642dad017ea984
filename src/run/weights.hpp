// A rank's weights on its device: all of them resident, or one layer at a time.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "spdnn/plan.hpp"

namespace spdnn {

/// Kernels' forms of resident weights in host memory, made once and shared by all CPU ranks of a
/// run.
class SharedForms {
 public:
  explicit SharedForms(const Model& model) : model_(model) {}
  /// Layer `index` in `kernel`'s form; made by the first rank that asks, others wait. Thread-safe.
  [[nodiscard]] const PreparedWeights& get(std::int64_t index, const SpmmKernel<float>& kernel,
                                           Device& device, Stream& stream);

 private:
  struct Form {
    std::once_flag made;
    PreparedWeights weights;
  };
  const Model& model_;
  std::mutex mutex_;
  std::map<const SpmmKernel<float>*, std::deque<Form>> forms_;  ///< by kernel, then layer
};

/// The weights and biases of a model for one rank, each layer in its kernel's form.
class DeviceWeights {
 public:
  /// `kernels[layer]` prepares and runs the layer; `shared` holds what CPU ranks have in common.
  DeviceWeights(const Model& model, std::vector<const SpmmKernel<float>*> kernels,
                bool stream_layers, SharedForms& shared, Device& device, Stream& stream);
  /// Uploads the biases, and the weights when they are resident: from layer `first` on, then those
  /// before it, so that ranks that share forms make different ones.
  void upload(std::int64_t first);
  /// The layer's weights; when layers are streamed, they stay valid until the next call, and the
  /// layer before is given back.
  [[nodiscard]] const PreparedWeights& layer(std::int64_t index);
  [[nodiscard]] BiasView<float> bias(std::int64_t index) const;
  [[nodiscard]] const SpmmKernel<float>& kernel(std::int64_t index) const {
    return *kernels_[index];
  }

 private:
  [[nodiscard]] const Csr& host(std::int64_t index) const;
  const Model& model_;
  std::vector<const SpmmKernel<float>*> kernels_;
  bool stream_layers_;
  SharedForms& shared_;
  Device& device_;
  Stream& stream_;
  std::vector<const PreparedWeights*> resident_;  ///< by layer: in `owned_` or shared
  std::deque<PreparedWeights> owned_;
  PreparedWeights window_;
  std::int64_t window_layer_ = -1;
  Buffer biases_;
  std::vector<std::int64_t> bias_offsets_;
  std::vector<float> host_biases_;
};

}  // namespace spdnn
