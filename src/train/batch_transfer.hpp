// A batch's way to a rank's device, and the way back of what is found of it.
#pragma once

#include <memory>

#include "spdnn/device.hpp"
#include "spdnn/train_op.hpp"

namespace spdnn::train {

/// Images and labels where a device's kernels can read them: copies, or on the CPU what the host
/// has. Sums and predictions come back while the device goes on with the batch.
template <class T>
class BatchTransfer {
 public:
  /// Room for `most_images` images of `inputs` features, `lanes` with those that fill panels up.
  BatchTransfer(Device& device, Stream& stream, std::int64_t inputs, std::int64_t most_images,
                std::int64_t lanes);

  /// The same images for the device. Those of the host must stay as they are until `finish`.
  [[nodiscard]] Panels<const T> images(const Panels<const T>& host);
  [[nodiscard]] const std::int32_t* labels(const std::int32_t* host, std::int64_t count);
  /// Where the device writes the sum of the loss and the predictions.
  [[nodiscard]] double* loss_sum() const { return found_.as<double>(); }
  [[nodiscard]] std::int32_t* predictions() const {
    return reinterpret_cast<std::int32_t*>(found_.as<double>() + 1);
  }
  /// Begins to bring both back, predictions of `count` images. The stream may keep it.
  void start_back(std::int64_t count);
  /// `finish` waits for what the stream was given up to here.
  void mark_back(std::int64_t count);
  /// Waits for them; returns the sum. Predictions are copied where `predictions` is not null.
  double finish(std::int32_t* predictions);

  /// Bytes of the device's memory and of the host's beside it.
  [[nodiscard]] std::int64_t device_bytes() const;
  [[nodiscard]] std::int64_t host_bytes() const;

 private:
  Stream& stream_;
  bool copies_;                ///< the device has memory of its own
  Buffer images_, labels_;     ///< on the device; empty without copies
  Buffer found_, found_back_;  ///< a sum, then predictions; the latter is the host's copy
  std::unique_ptr<Event> back_;
  std::int64_t count_ = 0;
};

}  // namespace spdnn::train
