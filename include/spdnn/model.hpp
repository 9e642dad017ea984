// A network as data: layers with their weights, biases and activations.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "spdnn/op.hpp"

namespace spdnn {

/// A window of `kernel` places a side over planes of `channels` channels. `padding` places are
/// added on all four sides; without it as many as make the output `⌈in / stride⌉` a side (SAME),
/// the odd one at the end. Throws `InputError` where the window does not fit.
[[nodiscard]] Window2d make_window(std::int64_t channels, std::int64_t in_height,
                                   std::int64_t in_width, std::int64_t kernel, std::int64_t stride,
                                   std::optional<std::int64_t> padding);

/// y = h(W·x + b), W sparse `[outputs × inputs]`.
struct SparseLinear {
  Csr weights;
  std::vector<float> bias;  ///< one for each output, or a single one shared by all
  Epilogue activation;      ///< bounds of h
  [[nodiscard]] std::int64_t inputs() const noexcept { return weights.cols(); }
  [[nodiscard]] std::int64_t outputs() const noexcept { return weights.rows(); }
};

/// y = h(W∗x + b), W the filters `[filters × channels · kernel_height · kernel_width]`; features
/// are ordered channel, height, width.
struct SparseConv2d {
  Window2d window;
  Csr weights;
  std::vector<float> bias;  ///< one for each filter, or a single one shared by all
  Epilogue activation;      ///< bounds of h
  [[nodiscard]] std::int64_t inputs() const noexcept { return window.inputs(); }
  [[nodiscard]] std::int64_t outputs() const noexcept {
    return weights.rows() * window.out_pixels();
  }
};

/// The largest or the mean of the inputs in each window, channel by channel.
struct Pool2d {
  Window2d window;
  LayerKind kind = LayerKind::max_pool;  ///< or average_pool
  [[nodiscard]] std::int64_t inputs() const noexcept { return window.inputs(); }
  [[nodiscard]] std::int64_t outputs() const noexcept {
    return window.channels * window.out_pixels();
  }
};

/// The kinds of layers.
using Layer = std::variant<SparseLinear, SparseConv2d, Pool2d>;

[[nodiscard]] std::int64_t layer_inputs(const Layer& layer);
[[nodiscard]] std::int64_t layer_outputs(const Layer& layer);
[[nodiscard]] LayerKind layer_kind(const Layer& layer);
/// The window of a layer that has one; a linear layer has the default.
[[nodiscard]] Window2d layer_window(const Layer& layer);
/// Weights, biases and activation; of a pooling an empty matrix, none, and the identity.
[[nodiscard]] const Csr& layer_weights(const Layer& layer);
[[nodiscard]] const std::vector<float>& layer_bias(const Layer& layer);
[[nodiscard]] Epilogue layer_activation(const Layer& layer);
/// Stored weights of a layer times the places they are used at: the edges one image costs.
[[nodiscard]] std::int64_t layer_edges(const Layer& layer);

/// A network: layers applied in order, each taking the one before's outputs.
struct Model {
  std::string name;
  /// Where the weights came from, for reports: "official files", "generated (RadiX-Net, seed 1)".
  std::string origin;
  std::vector<Layer> layers;

  [[nodiscard]] std::int64_t inputs() const;
  [[nodiscard]] std::int64_t outputs() const;
  /// Edges of all layers: multiply–adds for one image.
  [[nodiscard]] std::int64_t edges() const;
  /// Bytes of all weights as stored.
  [[nodiscard]] std::int64_t weight_bytes() const;
};

/// Whether all layers are linear, which compiling and formats of single matrices ask for.
[[nodiscard]] bool all_linear(const Model& model);

/// Throws `InputError` naming the layer where widths do not fit, a window does not fit its filters,
/// a bias has the wrong length or is not finite, or the bounds of an activation are reversed.
void validate(const Model& model);

/// First layer from which an all-zero image stays all-zero to the end: h(b) = 0 for every output of
/// it and every later layer. `layers.size()` when the last layer already breaks it.
[[nodiscard]] std::int64_t dead_stays_dead_from(const Model& model);

/// First layer from which on all layers are equal in weights, bias and activation, so that an image
/// that one of them leaves as it was stays so to the end; the last layer where none is like it.
/// Compares contents from the last layer back.
[[nodiscard]] std::int64_t alike_from(const Model& model);

}  // namespace spdnn
