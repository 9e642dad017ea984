// A network while it is trained, on one rank: its layers and their parameters.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "device_pattern.hpp"
#include "layer.hpp"

namespace spdnn::train {

/// Throws `InputError` where a layer takes other inputs than the one before puts out.
void check_widths(const std::vector<TrainLayer>& layers);

/// First values of layer `number`, drawn uniformly so that sums keep the variance of its inputs (He
/// et al., ICCV 2015), each output by its own number of connections. `seed` fixes all bits.
template <class T>
[[nodiscard]] std::vector<T> draw_values(const TrainLayer& layer, std::uint64_t seed,
                                         std::size_t number);

/// The parameters of all layers in one array of the device: the values layer by layer, then the
/// biases. A gradient, and each array of an optimiser's state, has the same layout.
template <class T>
class Network {
 public:
  /// Throws `InputError` where there is no layer. Parameters are left unset.
  Network(std::vector<TrainLayer> layers, const TrainKernels<T>& kernels, Device& device,
          Stream& stream);

  /// Their patterns may have changed on the device since, and then have no arrays here.
  [[nodiscard]] const std::vector<TrainLayer>& layers() const noexcept { return layers_; }
  /// A layer's connections as they are now, fetched from the device where they changed there.
  [[nodiscard]] const Pattern& pattern(std::size_t layer) const;
  /// To change a layer's connections on a device with memory of its own: the host forgets them.
  [[nodiscard]] const PatternArrays& change_pattern(std::size_t layer);
  /// Gives a layer other connections, as many as it has; on a GPU they are written where the old
  /// ones were, once its stream has come here. Throws as `Pattern::replace` does.
  void replace_pattern(std::size_t layer, std::vector<std::int64_t> row_offsets,
                       std::vector<std::uint32_t> col_indices);
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
  /// A layer as kernels take it: all of it in the device's memory.
  [[nodiscard]] LinearView<T> view(std::size_t layer) const;
  /// Bytes of patterns on a device with memory of its own, by rows and by columns.
  [[nodiscard]] std::int64_t device_csr_bytes() const;
  [[nodiscard]] std::int64_t device_csc_bytes() const;
  [[nodiscard]] const TrainKernels<T>& kernels() const noexcept { return *kernels_; }
  [[nodiscard]] Device& device() const noexcept { return *device_; }
  [[nodiscard]] Stream& stream() const noexcept { return *stream_; }

  /// Gives the gradient's memory back: the network is trained no more.
  void drop_gradient() { gradient_ = {}; }
  /// Draws all values; biases become 0.
  void initialize(std::uint64_t seed);

 private:
  mutable std::vector<TrainLayer> layers_;  ///< patterns are fetched when somebody asks
  std::vector<DevicePattern> patterns_;
  const TrainKernels<T>* kernels_;
  Device* device_;
  Stream* stream_;
  std::vector<std::int64_t> value_begin_, bias_begin_;
  std::int64_t value_count_ = 0, parameter_count_ = 0;
  Buffer parameters_, gradient_;
};

}  // namespace spdnn::train
