// A batch's way through a network and back as the loop over steps sees it, whatever its activations
// are stored as.
#pragma once

#include <functional>
#include <memory>

#include "batch_transfer.hpp"
#include "network.hpp"
#include "shard.hpp"

namespace spdnn::train {

/// T is what images come as, and what parameters and losses are; see `BatchPass`.
template <class T>
class AnyBatchPass {
 public:
  /// Writes a layer's gradient as if it had the connections of `as`, which are those of all its
  /// units or of some from `first` on, and read the inputs that `halo` brings; null: its own.
  using GradientOn = std::function<void(const TrainLayer& as, std::int64_t first, const Halo* halo,
                                        T* dvalues, T* dbias)>;
  /// Sees on the way back how a layer's gradient is found.
  using Visit = std::function<void(std::size_t layer, const GradientOn& gradient)>;

  virtual ~AnyBatchPass() = default;
  /// Queues the way forward of `x`, `[inputs × batch]` in panels of the host's memory, and the
  /// loss, for `backward` with its gradient times `scale` by the last layer's sums. A GPU keeps
  /// that and replays it, as it does `backward`. `x` and `labels` must stay until `finish_loss`.
  /// All ranks call it.
  virtual void start(const Panels<const T>& x, Loss loss, const std::int32_t* labels, T scale) = 0;
  /// Waits for what the loss was, but not for work that was queued after it: returns the sum, the
  /// same on all ranks. `predictions`, one an image, may be null.
  double finish_loss(std::int32_t* predictions) { return transfer_.finish(predictions); }
  /// Fills the network's gradient from the last loss, or adds to what is there. All ranks call it.
  virtual void backward(const Visit& visit = {}, bool adds_up = false) = 0;
  /// Whether a GPU keeps its work; it does unless told otherwise.
  void keep_work(bool keeps) { keeps_ = keeps; }
  /// Multiplies the gradients of losses by what stands in the device's memory; null: by 1.
  void scale_losses(const float* scale) { loss_scale_ = scale; }

  /// Bytes that this rank sent so far because of layer `layer`, or of the loss where it is the
  /// number of layers: its inputs, or partial sums of a layer split by inputs; on the way back the
  /// gradients by them.
  [[nodiscard]] virtual std::int64_t forward_bytes(std::size_t layer) const = 0;
  [[nodiscard]] virtual std::int64_t backward_bytes(std::size_t layer) const = 0;
  /// Images that went each way so far.
  [[nodiscard]] std::int64_t images_forward() const noexcept { return images_forward_; }
  [[nodiscard]] std::int64_t images_backward() const noexcept { return images_backward_; }
  [[nodiscard]] virtual std::int64_t activation_bytes() const = 0;
  [[nodiscard]] virtual std::int64_t delta_bytes() const = 0;
  [[nodiscard]] virtual std::int64_t workspace_bytes() const = 0;
  /// Of images and values that are stored in 16 bits beside those of T.
  [[nodiscard]] virtual std::int64_t copy_bytes() const = 0;
  /// Messages and copies of the halos on the device; messages on their way through the host.
  [[nodiscard]] virtual std::int64_t halo_bytes() const = 0;
  [[nodiscard]] virtual std::int64_t halo_host_bytes() const = 0;
  /// That visitors' looks at some units of a layer took so far, and still do.
  [[nodiscard]] virtual std::int64_t cut_bytes() const = 0;
  /// Calls of `start` and `backward` that were replayed.
  [[nodiscard]] virtual std::int64_t replayed() const = 0;
  [[nodiscard]] const BatchTransfer<T>& transfer() const noexcept { return transfer_; }

 protected:
  explicit AnyBatchPass(BatchTransfer<T> transfer) : transfer_(std::move(transfer)) {}
  AnyBatchPass(const AnyBatchPass&) = delete;
  AnyBatchPass& operator=(const AnyBatchPass&) = delete;

  BatchTransfer<T> transfer_;
  bool keeps_ = true;
  const float* loss_scale_ = nullptr;
  std::int64_t images_forward_ = 0, images_backward_ = 0;
};

/// Bytes of a number that is stored as fp32, bf16 or fp16.
[[nodiscard]] constexpr std::int64_t stored_bytes(Precision stored) {
  return stored == Precision::fp32 ? 4 : 2;
}
/// What computes with T, of 16 bits. Throws `InputError` where devices of the kind don't.
template <class T>
[[nodiscard]] const TrainKernels<T>& narrow_kernels(DeviceKind kind);

/// A pass that stores what `stored` says: fp32, bf16 or fp16.
[[nodiscard]] std::unique_ptr<AnyBatchPass<float>> make_pass(Precision stored,
                                                             Network<float>& network,
                                                             const Shard& shard, Communicator& comm,
                                                             std::int64_t most_images);
/// The same of a rank alone.
[[nodiscard]] std::unique_ptr<AnyBatchPass<float>> make_pass(Precision stored,
                                                             Network<float>& network,
                                                             std::int64_t most_images);

}  // namespace spdnn::train
