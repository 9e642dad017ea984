// Weights that do not fit a device: brought there layer by layer, the next while one is used.
#pragma once

#include <memory>
#include <vector>

#include "spdnn/model.hpp"
#include "spdnn/op.hpp"

namespace spdnn {

/// Two layers' worth of device memory that take turns. A layer is put into its kernel's form in
/// pinned memory, copied as one piece on a stream of its own, and used once that has arrived, so
/// that a copy passes behind the layer before. The host waits only for pinned memory to be free.
class StagedLayers {
 public:
  /// `compute`: the stream that uses the layers.
  StagedLayers(const Model& model, Device& device, Stream& compute);

  /// The layer's weights, for work that is queued on `compute` before the next call with another
  /// layer. Waits for nothing but a copy that is still to be begun.
  [[nodiscard]] const PreparedWeights& get(std::int64_t layer, const SpmmKernel<float>& kernel);
  /// Tells that all work with a layer is queued: its slot is free after that.
  void release(std::int64_t layer);
  /// Begins to bring a layer.
  void fetch(std::int64_t layer, const SpmmKernel<float>& kernel);

 private:
  struct Slot {
    std::int64_t layer = -1;
    PreparedWeights weights;
    Buffer there, pinned;
    std::unique_ptr<Event> arrived, used;
  };
  void pack(Slot& slot, const CsrView& host, const SpmmKernel<float>& kernel);

  const Model& model_;
  Device& device_;
  Stream& compute_;
  std::unique_ptr<Stream> copies_;
  Slot slots_[2];
};

}  // namespace spdnn
