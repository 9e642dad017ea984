// The kinds of layers that are trained, behind one face: what connects them with their inputs, how
// they are split by rows, and which kernels compute them.
#pragma once

#include <variant>

#include "pattern.hpp"

namespace spdnn::train {

/// A neuron for each row of the weights.
struct LinearForm {};
/// A filter for each row of the weights, and a plane of outputs for each filter.
struct ConvForm {
  Window2d window;
};
/// Largest or mean of each window, channel by channel; no weights.
struct PoolForm {
  Window2d window;
  LayerKind kind = LayerKind::max_pool;
};

/// One layer. Its outputs come unit by unit: the units [a, b) are the features
/// [a · features_per_unit, b · features_per_unit). A pooling's units are its channels, so that it
/// follows the split of the layer before it without knowing of it.
struct TrainLayer {
  Pattern pattern;      ///< of the weights; a pooling has none, 0 × 0
  Epilogue activation;  ///< what follows the sums; of a pooling the identity
  std::variant<LinearForm, ConvForm, PoolForm> form = LinearForm{};

  [[nodiscard]] std::int64_t inputs() const;
  [[nodiscard]] std::int64_t outputs() const { return units() * features_per_unit(); }
  /// Rows of the weights: neurons or filters; of a pooling its channels.
  [[nodiscard]] std::int64_t units() const;
  /// 1 for a linear layer, else the pixels of an output plane.
  [[nodiscard]] std::int64_t features_per_unit() const;
  /// Elements of workspace that its way back needs.
  [[nodiscard]] std::int64_t workspace() const;
  /// The same layer with the units of `range` alone: it puts out their features, from the same
  /// inputs, or where it is a pooling from those channels alone.
  [[nodiscard]] TrainLayer slice(Range range) const;
};

[[nodiscard]] TrainLayer linear_layer(Pattern pattern, const Epilogue& activation);
/// Throws `InputError` where the pattern's columns are not the window's.
[[nodiscard]] TrainLayer conv_layer(const Window2d& window, Pattern pattern,
                                    const Epilogue& activation);
[[nodiscard]] TrainLayer pool_layer(const Window2d& window, LayerKind kind);

/// y = what the layer makes of x.
template <class T>
void forward(const TrainLayer& layer, const TrainKernels<T>& kernels, const LinearView<T>& weights,
             const Panels<const T>& x, const Panels<T>& y, Stream& stream);

/// dx from dz, the gradient of the layer's sums; `below` is the activation that made x.
template <class T>
void backward_data(const TrainLayer& layer, const TrainKernels<T>& kernels,
                   const LinearView<T>& weights, const Panels<const T>& dz, const Epilogue& below,
                   const Panels<const T>& x, const Panels<T>& dx, T* workspace, Stream& stream);

/// The gradient by the layer's values and biases; nothing where it has none. With another pattern
/// than the layer's own it is taken on that one.
template <class T>
void backward_weights(const TrainLayer& layer, const TrainKernels<T>& kernels,
                      const PatternView& pattern, const Panels<const T>& dz,
                      const Panels<const T>& x, const ParameterGradient<T>& gradient,
                      Stream& stream);

/// Both, at once where the device has a kernel for that. The layer's own window counts.
template <class T>
void backward(const TrainLayer& layer, const TrainKernels<T>& kernels,
              const BackwardDataArgs<T>& args, const ParameterGradient<T>& gradient,
              Stream& stream);

}  // namespace spdnn::train
