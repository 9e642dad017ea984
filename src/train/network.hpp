// A network while it is trained, on one rank: its layers, its parameters, and a batch's way through
// it and back.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "layer.hpp"

namespace spdnn::train {

/// The parameters of all layers in one array: the values layer by layer, then the biases. A
/// gradient, and each array of an optimiser's state, has the same layout.
template <class T>
class Network {
 public:
  /// Throws `InputError` where widths do not fit. Parameters are left unset.
  Network(std::vector<TrainLayer> layers, const TrainKernels<T>& kernels, Device& device,
          Stream& stream);

  [[nodiscard]] const std::vector<TrainLayer>& layers() const noexcept { return layers_; }
  [[nodiscard]] std::int64_t inputs() const { return layers_.front().inputs(); }
  [[nodiscard]] std::int64_t outputs() const { return layers_.back().outputs(); }
  /// Values and biases of all layers; the values alone, which come first.
  [[nodiscard]] std::int64_t parameter_count() const noexcept { return parameter_count_; }
  [[nodiscard]] std::int64_t value_count() const noexcept { return value_count_; }
  /// Where a layer's values and its biases are in the arrays of parameters.
  [[nodiscard]] Range values_of(std::size_t layer) const;
  [[nodiscard]] Range biases_of(std::size_t layer) const;

  [[nodiscard]] T* parameters() const { return parameters_.template as<T>(); }
  [[nodiscard]] T* gradient() const { return gradient_.template as<T>(); }
  [[nodiscard]] LinearView<T> view(std::size_t layer) const;
  [[nodiscard]] const TrainKernels<T>& kernels() const noexcept { return *kernels_; }
  [[nodiscard]] Device& device() const noexcept { return *device_; }
  [[nodiscard]] Stream& stream() const noexcept { return *stream_; }

  /// Draws values uniformly so that sums keep the variance of a layer's inputs (He et al., ICCV
  /// 2015), each output by its own number of connections; biases become 0. `seed` fixes all bits.
  void initialize(std::uint64_t seed);
  /// Gives a layer other connections, as many as before. The caller moves the values.
  void replace_pattern(std::size_t layer, std::vector<std::int64_t> row_offsets,
                       std::vector<std::uint32_t> col_indices);

 private:
  std::vector<TrainLayer> layers_;
  const TrainKernels<T>* kernels_;
  Device* device_;
  Stream* stream_;
  std::vector<std::int64_t> value_begin_, bias_begin_;
  std::int64_t value_count_ = 0, parameter_count_ = 0;
  Buffer parameters_, gradient_;
};

/// What one batch needs on its way: the activations of every layer once, and two deltas.
template <class T>
class BatchPass {
 public:
  /// Room for batches of up to `most_images`.
  BatchPass(Network<T>& network, std::int64_t most_images);

  /// The network's outputs for `x`, `[inputs × batch]` in panels; they live until the next call.
  [[nodiscard]] Panels<const T> forward(const Panels<const T>& x);
  /// Sum of the loss over the batch of the last `forward`. Where there is room for the way back,
  /// the gradient times `scale` by the last layer's sums is kept for `backward`. `predictions` may
  /// be null.
  [[nodiscard]] double loss(Loss loss, const std::int32_t* labels, T scale,
                            std::int32_t* predictions);
  /// Sees a layer's input and the gradient by its sums on the way back.
  using Visit =
      std::function<void(std::size_t layer, const Panels<const T>& dz, const Panels<const T>& x)>;
  /// Fills the network's gradient from the last `loss`.
  void backward(const Visit& visit = {});

  [[nodiscard]] std::int64_t activation_bytes() const;
  [[nodiscard]] std::int64_t delta_bytes() const;
  [[nodiscard]] std::int64_t workspace_bytes() const;

 private:
  /// Where layer `layer` puts what it computes.
  [[nodiscard]] Panels<T> output_of(std::size_t layer) const;
  [[nodiscard]] Panels<const T> input_of(std::size_t layer) const;
  [[nodiscard]] Panels<T> delta(int which, std::int64_t features) const;

  Network<T>& network_;
  std::int64_t width_;
  std::vector<Buffer> activations_;
  Buffer deltas_[2];
  Buffer workspace_;
  Panels<const T> x_;
};

}  // namespace spdnn::train
