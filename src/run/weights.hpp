// A rank's weights on its device: all of them resident, or one layer at a time.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "spdnn/plan.hpp"
#include "staging.hpp"

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

/// Layers that run as one.
struct DeviceChain {
  const ChainKernel<float>* kernel = nullptr;  ///< null: the layers run one by one
  PreparedChain prepared;
};

/// The weights and biases of a model for one rank, each layer in its kernel's form.
class DeviceWeights {
 public:
  /// For the kernels that `plan` names for `rank`, and batches of up to `most_images`; `shared`
  /// holds what CPU ranks have in common. Throws `DeviceError` where this build lacks a kernel.
  DeviceWeights(const Model& model, const Plan& plan, int rank, std::int64_t most_images,
                SharedForms& shared, Device& device, Stream& stream);
  /// Uploads the biases, and the weights when they are resident: from layer `first` on, then those
  /// before it, so that ranks that share forms make different ones.
  void upload(std::int64_t first);
  /// Of a segment, by its number.
  [[nodiscard]] const DeviceChain& chain(std::size_t segment) const { return chains_[segment]; }
  /// The weights of a layer that is in no chain; when layers are streamed, they stay valid until
  /// the next call, and the layer before is given back.
  [[nodiscard]] const PreparedWeights& layer(std::int64_t index);
  /// Tells that the work on a layer is queued: where layers are streamed past the host, the next
  /// one is brought meanwhile.
  void used(std::int64_t index);
  /// Whether all weights stay on the device.
  [[nodiscard]] bool resident() const { return !stream_layers_; }
  [[nodiscard]] BiasView<float> bias(std::int64_t index) const;
  [[nodiscard]] const SpmmKernel<float>& kernel(std::int64_t index) const {
    return *kernels_[index];
  }

 private:
  [[nodiscard]] const Csr& host(std::int64_t index) const;
  [[nodiscard]] bool is_staged(std::int64_t index) const;
  void upload_chains();
  const Model& model_;
  const Plan& plan_;
  std::vector<const SpmmKernel<float>*> kernels_;  ///< by layer
  std::vector<DeviceChain> chains_;                ///< by segment
  std::vector<bool> chained_;                      ///< by layer
  std::int64_t most_images_;
  bool stream_layers_;
  SharedForms& shared_;
  Device& device_;
  Stream& stream_;
  std::vector<const PreparedWeights*> resident_;  ///< by layer: in `owned_` or shared
  std::deque<PreparedWeights> owned_;
  std::optional<StagedLayers> staged_;  ///< on devices with memory of their own
  PreparedWeights window_;
  std::int64_t window_layer_ = -1;
  Buffer biases_;
  std::vector<std::int64_t> bias_offsets_;
  std::vector<float> host_biases_;
};

}  // namespace spdnn
