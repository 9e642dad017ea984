// A batch's way through a rank's rows of a network and back, with the exchanges between the ranks.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "any_pass.hpp"
#include "kept_work.hpp"
#include "sum_exchange.hpp"

namespace spdnn::train {

/// In place of what adds up parts of sums, which is done on the CPU, where nothing is stored in 16
/// bits.
struct NoSums {
  explicit NoSums(const auto&...) {
    throw InputError("/train/input_split: layers split by inputs are stored in 'fp32'");
  }
  [[nodiscard]] std::int64_t parts() const { return 0; }
  [[nodiscard]] std::int64_t own() const { return 0; }
  [[nodiscard]] const Epilogue& activation() const { return activation_; }
  void start_sums(const auto&...) {}
  void finish_sums(const auto&...) {}
  void start_gradient(const auto&...) {}
  void finish_gradient(const auto&...) {}
  [[nodiscard]] std::int64_t device_bytes() const { return 0; }
  [[nodiscard]] std::int64_t forward_bytes() const { return 0; }
  [[nodiscard]] std::int64_t backward_bytes() const { return 0; }

 private:
  Epilogue activation_{};
};

/// What one batch needs on its way: what every layer reads and puts out, and two deltas, stored as
/// T; where that is of 16 bits, of the values and images as well.
///
/// Where ranks share the rows, a batch goes in two chunks of images, so that the exchange of one is
/// under way while the other is computed; the gradients of the weights, which stay with the rank,
/// are computed while the parts of the way back travel. A batch of one panel can't be divided: the
/// rows that read own inputs alone are computed first. A layer split by inputs reads own inputs
/// alone; the exchange is behind it, of partial sums on the way there, of their gradient back. Of
/// the loss each rank finds the gradient by its own outputs, once it knows what those of the others
/// say: a few words an image, which travel as each chunk is done.
template <class T>
class BatchPass final : public AnyBatchPass<Wide<T>> {
 public:
  using W = Wide<T>;
  using typename AnyBatchPass<W>::Visit;

  /// Room for batches of up to `most_images` in panels of `width`, 0: as the device likes them. The
  /// network holds the layers of `shard`; both, and `comm`, must live as long. Throws `InputError`
  /// where no kernels of the device store T.
  BatchPass(Network<W>& network, const Shard& shard, Communicator& comm, std::int64_t most_images,
            std::int64_t width = 0);
  /// A rank alone with all of the network.
  BatchPass(Network<W>& network, std::int64_t most_images, std::int64_t width = 0);

  void start(const Panels<const W>& x, Loss loss, const std::int32_t* labels, W scale) override;
  void backward(const Visit& visit = {}, bool adds_up = false) override;

  /// What this rank's rows of a layer put out for the last batch, in the device's memory.
  [[nodiscard]] Panels<const T> output(std::size_t layer) const { return output_of(layer); }
  [[nodiscard]] std::int64_t forward_bytes(std::size_t layer) const override;
  [[nodiscard]] std::int64_t backward_bytes(std::size_t layer) const override;
  [[nodiscard]] std::int64_t width() const noexcept { return width_; }
  [[nodiscard]] std::int64_t activation_bytes() const override;
  [[nodiscard]] std::int64_t delta_bytes() const override;
  [[nodiscard]] std::int64_t workspace_bytes() const override;
  [[nodiscard]] std::int64_t copy_bytes() const override;
  [[nodiscard]] std::int64_t halo_bytes() const override;
  [[nodiscard]] std::int64_t halo_host_bytes() const override;
  [[nodiscard]] std::int64_t cut_bytes() const override {
    return static_cast<std::int64_t>(cut_.bytes());
  }
  [[nodiscard]] std::int64_t replayed() const override { return kept_.replayed(); }

 private:
  BatchPass(Network<W>& network, std::optional<Shard> own, const Shard* shard, Communicator* comm,
            std::int64_t most_images, std::int64_t width);
  /// What is the same in all steps that have these alike.
  struct Part {
    bool forward;
    std::int64_t images;
    Loss loss;
    W scale;
    bool adds_up;
    friend bool operator==(const Part&, const Part&) = default;
  };
  template <class Work>
  void run_kept(const Part& part, const Work& work) {
    if (!this->keeps_ || exchanges()) return work();
    kept_.run(network_.stream(), part, work);
  }
  [[nodiscard]] bool exchanges() const;
  [[nodiscard]] std::vector<Range> chunks() const;
  /// Features that this rank owns of what a layer puts out, and the activation that makes them.
  [[nodiscard]] std::int64_t own_outputs(std::size_t layer) const;
  [[nodiscard]] const Epilogue& activation_of(std::size_t layer) const;
  /// Where layer `layer` puts what it computes, and what it reads.
  [[nodiscard]] Panels<T> output_of(std::size_t layer) const;
  [[nodiscard]] Panels<T> gathered(std::size_t layer) const;
  [[nodiscard]] Panels<const T> input_of(std::size_t layer) const;
  [[nodiscard]] Panels<T> delta(std::size_t layer) const;
  [[nodiscard]] Panels<const T> delta_of_units(std::size_t layer, Range units);
  [[nodiscard]] Panels<const T> whole_input(std::size_t layer, const Halo& halo, Buffer& whole);
  [[nodiscard]] LinearView<T> view(std::size_t layer) const;
  [[nodiscard]] ParameterGradient<T> gradient_of(std::size_t layer) const;
  void take(const Panels<const W>& x);
  void store_narrow();
  /// Of a layer split by inputs: its part of the sums, and on the way back the gradient by them.
  [[nodiscard]] Panels<T> parts_of(std::size_t layer) const;
  void forward_layers();
  void make_room_for_loss(std::int64_t lanes);
  /// What this rank's outputs say of the loss of some images goes to the others; and what all say.
  void send_loss_part(Range chunk);
  void take_loss(Range chunk);
  [[nodiscard]] LossArgs<T> loss_of(Range chunk) const;
  [[nodiscard]] Panels<W> loss_parts() const;
  void backward_layers(const Visit& visit);
  void backward_at_once(std::size_t layer);
  void backward_in_chunks(std::size_t layer, const std::vector<Range>& chunks);
  void forward_layer(std::size_t layer, Range chunk, bool only_chunk);
  void forward_rows(std::size_t layer, Range units, Range chunk);
  void start_next(std::size_t layer, Range chunk);
  void backward_weights_of(std::size_t layer);
  void backward_data_of(std::size_t layer, Range chunk);

  using Exchange = HaloExchange<T>;
  using Sums = std::conditional_t<kIsNarrow<T>, NoSums, SumExchange<W>>;

  Network<W>& network_;
  const TrainKernels<T>& kernels_;
  std::optional<Shard> own_shard_;
  const Shard& shard_;
  Communicator* comm_;  ///< of the ranks that share the rows; null: there are none
  std::int64_t width_;
  std::int64_t grain_;  ///< images that are whole panels on all ranks that share the rows
  KeptWork<Part> kept_;
  std::vector<Buffer> activations_;
  std::vector<Buffer> inputs_;  ///< by layer and for the loss; empty where read in place
  std::vector<std::unique_ptr<Exchange>> exchanges_;  ///< by layer, and one that is never there
  std::unique_ptr<HaloExchange<W>> loss_exchange_;    ///< of what outputs say of the loss
  std::vector<std::unique_ptr<Sums>> sums_;           ///< by layer; of those split by inputs
  Buffer deltas_[2];
  Buffer partials_, parts_;
  Buffer loss_part_, loss_parts_, outputs_;  ///< the latter two empty on a rank alone
  LossArgs<T> loss_;                         ///< of the batch under way
  bool adds_up_ = false;                     ///< its gradient is added to what is there
  Buffer workspace_;
  Buffer cut_;              ///< what visitors see of a delta; empty until one looks at some units
  Buffer values_, images_;  ///< in 16 bits; empty where T is no narrow type
  Panels<const W> taken_;   ///< the batch as it came
  Panels<const T> x_;       ///< and as it is read
};

}  // namespace spdnn::train
