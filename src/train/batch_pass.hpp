// A batch's way through a rank's rows of a network and back, with the exchanges between the ranks.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "batch_transfer.hpp"
#include "kept_work.hpp"
#include "network.hpp"
#include "shard.hpp"

namespace spdnn::train {

/// What one batch needs on its way: what every layer reads and puts out, and two deltas.
///
/// Where ranks share the rows, a batch goes in two chunks of images, so that the exchange of one is
/// under way while the other is computed; the gradients of the weights, which stay with the rank,
/// are computed while the parts of the way back travel. A batch of one panel can't be divided: the
/// rows that read own inputs alone are computed first.
template <class T>
class BatchPass {
 public:
  /// Room for batches of up to `most_images` in panels of `width`, 0: as the device likes them. The
  /// network holds the layers of `shard`; both, and `comm`, must live as long.
  BatchPass(Network<T>& network, const Shard& shard, Communicator& comm, std::int64_t most_images,
            std::int64_t width = 0);
  /// A rank alone with all of the network.
  BatchPass(Network<T>& network, std::int64_t most_images, std::int64_t width = 0);

  /// The network's outputs for `x`, `[inputs × batch]` in panels of the host's memory, all of them
  /// in their original order; they live in the device's memory until the next call. `x` must stay
  /// until `finish_loss`, or else until the stream was waited for. All ranks call it.
  [[nodiscard]] Panels<const T> forward(const Panels<const T>& x);
  /// The loss over the batch of the last `forward`, and for `backward` its gradient times `scale`
  /// by the last layer's sums. `labels` must stay until `finish_loss`.
  void start_loss(Loss loss, const std::int32_t* labels, T scale);
  /// Waits for what `start_loss` found, but not for work that was queued after it: returns the sum,
  /// the same on all ranks. `predictions`, one an image, may be null.
  double finish_loss(std::int32_t* predictions) { return transfer_.finish(predictions); }
  /// Both.
  [[nodiscard]] double loss(Loss loss, const std::int32_t* labels, T scale,
                            std::int32_t* predictions) {
    start_loss(loss, labels, scale);
    return finish_loss(predictions);
  }
  /// `forward` and `start_loss` in one, which a GPU keeps and replays, as it does `backward`.
  void start(const Panels<const T>& x, Loss loss, const std::int32_t* labels, T scale);
  /// Whether it does so; it does unless told otherwise.
  void keep_work(bool keeps) { keeps_ = keeps; }
  /// Sees a layer's input and the gradient by its sums on the way back.
  using Visit =
      std::function<void(std::size_t layer, const Panels<const T>& dz, const Panels<const T>& x)>;
  /// Fills the network's gradient from the last `loss`. All ranks call it.
  void backward(const Visit& visit = {});

  /// What this rank's rows of a layer put out in the last `forward`.
  [[nodiscard]] Panels<const T> output(std::size_t layer) const { return output_of(layer); }
  /// The exchange before layer `layer`, before the loss where it is the number of layers; null
  /// where nothing crosses.
  [[nodiscard]] const HaloExchange<T>* exchange(std::size_t layer) const {
    return exchanges_[layer].get();
  }
  /// Images that went each way so far.
  [[nodiscard]] std::int64_t images_forward() const noexcept { return images_forward_; }
  [[nodiscard]] std::int64_t images_backward() const noexcept { return images_backward_; }
  [[nodiscard]] std::int64_t width() const noexcept { return width_; }
  [[nodiscard]] std::int64_t activation_bytes() const;
  [[nodiscard]] std::int64_t delta_bytes() const;
  [[nodiscard]] std::int64_t workspace_bytes() const;
  /// Calls of `start` and `backward` that were replayed.
  [[nodiscard]] std::int64_t replayed() const { return kept_.replayed(); }
  [[nodiscard]] const BatchTransfer<T>& transfer() const noexcept { return transfer_; }
  /// Messages and copies of the halos.
  [[nodiscard]] std::int64_t halo_bytes() const;

 private:
  BatchPass(Network<T>& network, std::optional<Shard> own, const Shard* shard, Communicator* comm,
            std::int64_t most_images, std::int64_t width);
  /// What is the same in all steps that have these alike.
  struct Half {
    bool forward;
    std::int64_t images;
    Loss loss;
    T scale;
    friend bool operator==(const Half&, const Half&) = default;
  };
  template <class Work>
  void run_kept(const Half& half, const Work& work);
  [[nodiscard]] bool exchanges() const;
  [[nodiscard]] std::vector<Range> chunks() const;
  /// Where layer `layer` puts what it computes, and what it reads; the latter also for the loss.
  [[nodiscard]] Panels<T> output_of(std::size_t layer) const;
  [[nodiscard]] Panels<T> gathered(std::size_t layer) const;
  [[nodiscard]] Panels<const T> input_of(std::size_t layer) const;
  [[nodiscard]] Panels<T> delta(std::size_t layer) const;
  void forward_layers();
  void queue_loss(Loss loss, const std::int32_t* labels, T scale);
  void backward_layers(const Visit& visit);
  void forward_layer(std::size_t layer, Range chunk, bool only_chunk);
  void forward_rows(std::size_t layer, Range units, Range chunk);
  void backward_data_of(std::size_t layer, Range chunk);

  Network<T>& network_;
  std::optional<Shard> own_shard_;
  const Shard& shard_;
  std::int64_t width_;
  BatchTransfer<T> transfer_;
  KeptWork<Half> kept_;
  bool keeps_ = true;
  std::vector<Buffer> activations_;
  std::vector<Buffer> inputs_;  ///< by layer and for the loss; empty where read in place
  std::vector<std::unique_ptr<HaloExchange<T>>> exchanges_;
  Buffer deltas_[2];
  Buffer partials_, loss_gradient_;
  Buffer workspace_;
  Panels<const T> x_;
  std::int64_t images_forward_ = 0, images_backward_ = 0;
};

}  // namespace spdnn::train
