// What the readers and writers of networks in single formats share.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "spdnn/io.hpp"

namespace spdnn {

/// Most neurons of a layer.
inline constexpr std::int64_t kMaxNeurons = std::numeric_limits<std::int32_t>::max();
/// Rows that a file of any size may ask for. More need a file of as many bytes, so that one wrong
/// digit can't ask for gigabytes of empty rows.
[[nodiscard]] constexpr std::int64_t most_rows(std::int64_t file_bytes) {
  return std::min(kMaxNeurons, std::max(std::int64_t{1} << 20, file_bytes));
}

/// A layer as far as its file tells.
struct StoredLayer {
  Csr weights;
  std::vector<float> bias;  ///< empty where the file has none
  std::optional<Activation> activation;
  std::optional<float> clip;
  LayerKind kind = LayerKind::linear;
  Window2d window = {};  ///< of the other kinds
};

/// Formats with one matrix a file.
[[nodiscard]] Csr read_npz(const std::filesystem::path& file);
void write_npz(const std::filesystem::path& file, const CsrView& matrix);
[[nodiscard]] Csr read_matrix_market(const std::filesystem::path& file);
void write_matrix_market(const std::filesystem::path& file, const CsrView& matrix);
[[nodiscard]] Csr read_smtx(const std::filesystem::path& file);
void write_smtx(const std::filesystem::path& file, const CsrView& matrix);
void write_layer_tsv(const std::filesystem::path& file, const CsrView& matrix);
/// Reads layers from Graph Challenge's lines `input output value`, widths as in `NetworkSettings`.
/// `biases` belong to the layers; where one is longer than a layer's largest output id, it tells
/// how many outputs there are.
[[nodiscard]] std::vector<Csr> read_tsv_layers(const std::vector<std::filesystem::path>& files,
                                               const std::vector<std::int64_t>& neurons,
                                               const std::vector<std::vector<float>>& biases);

/// Formats with all layers in a file.
[[nodiscard]] std::vector<StoredLayer> read_safetensors_layers(const std::filesystem::path& file);
void write_safetensors_layers(const std::filesystem::path& file, const Model& model);

/// The bias of each output up to the largest id in a file of lines `output value`.
[[nodiscard]] std::vector<float> read_bias(const std::filesystem::path& file);
void write_bias(const std::filesystem::path& file, const std::vector<float>& bias,
                std::int64_t outputs);

/// The same entries in `rows` × `cols`, which must hold them.
[[nodiscard]] Csr with_shape(const Csr& matrix, std::int64_t rows, std::int64_t cols);

/// "3 × 4".
[[nodiscard]] std::string shape_text(const Csr& matrix);

}  // namespace spdnn
