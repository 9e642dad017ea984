// One rank's rows of a network that runs: slices of its layers, in its kernels' forms.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "spdnn/halo.hpp"
#include "spdnn/plan.hpp"

namespace spdnn {

/// The rows of a layer that this rank owns, without the inputs that they do not read. The rows that
/// read own inputs alone come first, and are prepared on their own: they are computed while the
/// others' inputs are on their way.
struct RowLayer {
  Csr weights;
  Epilogue activation;
  LayerKind kind = LayerKind::linear;
  Window2d window;  ///< its channels are those that the rows read
  const SpmmKernel<float>* kernel = nullptr;
  std::array<Range, 2> rows;  ///< interior and others; of a pooling, channels
  std::array<PreparedWeights, 2> prepared;
  std::vector<float> bias;  ///< one for each row, or one for all; none where there are no rows
  std::int64_t each = 1;    ///< features that a row puts out
  Halo halo;                ///< what the layer reads of the one before

  [[nodiscard]] std::int64_t inputs() const { return halo.inputs; }
  [[nodiscard]] std::int64_t outputs() const { return rows[1].end * each; }
};

/// All layers, and what the first rank needs to gather the last one's outputs.
struct RowLayers {
  std::vector<RowLayer> layers;
  Halo outputs;
};

/// Who owns which rows of the layers of a network, one entry a layer; a pooling follows the layer
/// before it, whatever its own entry says. `spec` chooses; without a choice rows are divided one
/// after another, in proportion to `speeds`. Throws as `choose_partition`.
[[nodiscard]] std::vector<LayerPartition> divide_rows(const PartitionSpec& spec, const Model& model,
                                                      const std::vector<double>& speeds);

/// Cuts this rank's rows out of `model`, and prepares them for the kernels that are named, one a
/// layer, or where one declines a slice, for the first that takes it. All ranks of a group call it.
/// Throws `InputError` where the first layer is a pooling.
[[nodiscard]] RowLayers cut_layers(const Model& model, const std::vector<LayerPartition>& owners,
                                   const std::vector<std::string>& kernels, Communicator& comm,
                                   Device& device, Stream& stream);

}  // namespace spdnn
