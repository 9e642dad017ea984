// Layers and biases as text: Graph Challenge's `input output value`, and `output value`, ids
// from 1.
#include <fmt/format.h>

#include <algorithm>

#include "network_format.hpp"
#include "parallel.hpp"
#include "text_file.hpp"
#include "tsv.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

/// The N of a name nN-lL.tsv; nothing for other names.
std::optional<std::int64_t> neurons_of_name(const fs::path& file) {
  const std::string name = file.filename().string();
  const auto end = name.find("-l");
  if (!name.starts_with('n') || end == std::string::npos) return std::nullopt;
  std::optional<std::string> ignored;
  return read_id(std::string_view(name).substr(1, end - 1), {"neurons", kMaxNeurons}, "", ignored);
}

/// The inputs of the first layer and the outputs of each as far as they are said; empty where not.
std::vector<std::int64_t> widths_said(const std::vector<fs::path>& files,
                                      const std::vector<std::int64_t>& neurons) {
  if (neurons.size() == 1) return std::vector(files.size() + 1, neurons.front());
  if (!neurons.empty() && neurons.size() != files.size() + 1) {
    throw InputError(
        fmt::format("{} widths for {} layers; give one for all, or {}: the inputs of the "
                    "first layer and the outputs of each",
                    neurons.size(), files.size(), files.size() + 1));
  }
  if (!neurons.empty()) return neurons;
  const auto named = neurons_of_name(files.front());
  return named ? std::vector(files.size() + 1, *named) : std::vector<std::int64_t>{};
}

Csr read_layer(const fs::path& file, std::int64_t inputs, std::int64_t outputs, bool said) {
  const TsvFormat format{
      .first = {"input neuron", inputs},
      .second = {"output neuron", outputs},
      .row_first = false,
      .rows_from_file = !said,
      .missing_remedy = "put the layer there",
      .remedy = said ? "do the file's name and the widths given fit the network?" : ""};
  return TsvReader(format, reader_threads()).read(file);
}

std::int64_t largest_column(const CsrView& view) {
  std::int64_t largest = -1;
  for (std::int64_t k = 0; k < view.nnz; ++k) largest = std::max(largest, view.col(k));
  return largest;
}

}  // namespace

std::vector<Csr> read_tsv_layers(const std::vector<fs::path>& files,
                                 const std::vector<std::int64_t>& neurons,
                                 const std::vector<std::vector<float>>& biases) {
  std::vector<std::int64_t> widths = widths_said(files, neurons);
  const bool said = !widths.empty();
  for (std::size_t l = 0; said && l < widths.size(); ++l) {
    const fs::path& file = files[std::min(l, files.size() - 1)];
    const std::int64_t most = most_rows(InputFile(file).bytes());
    if (widths[l] < 1 || widths[l] > most) {
      throw InputError(file, fmt::format("{} neurons; there must be 1 to {}", widths[l], most));
    }
  }
  std::vector<Csr> layers;
  for (std::size_t l = 0; l < files.size(); ++l) {
    layers.push_back(read_layer(files[l], said ? widths[l] : kMaxNeurons,
                                said ? widths[l + 1] : most_rows(InputFile(files[l]).bytes()),
                                said));
  }
  if (!said) {
    // What no line names is still there where the next layer or a bias names it.
    widths.push_back(1 + largest_column(layers.front().view()));
    for (std::size_t l = 0; l < layers.size(); ++l) {
      widths.push_back(std::max(layers[l].rows(), std::ssize(biases[l])));
      if (l + 1 == layers.size()) continue;
      widths.back() = std::max(widths.back(), 1 + largest_column(layers[l + 1].view()));
      const std::int64_t most = most_rows(InputFile(files[l + 1]).bytes());
      if (widths.back() > most) {
        throw InputError(files[l + 1],
                         fmt::format("input neuron {} is out of range; without widths "
                                     "it must be from 1 to {}",
                                     widths.back(), most));
      }
    }
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    layers[l] = with_shape(layers[l], widths[l + 1], widths[l]);
  }
  return layers;
}

void write_layer_tsv(const fs::path& file, const CsrView& matrix) {
  if (matrix.nnz == 0) {
    throw InputError(file,
                     "a layer without an entry can't be told from a lost one in this format; "
                     "choose another");
  }
  OutputFile output(file);
  std::string text;
  for (std::int64_t row = 0; row < matrix.rows; ++row) {
    for (std::int64_t k = matrix.row_begin(row); k < matrix.row_begin(row + 1); ++k) {
      fmt::format_to(std::back_inserter(text), "{}\t{}\t{}\n", matrix.col(k) + 1, row + 1,
                     static_cast<float>(matrix.value(k)));
    }
    if (text.size() < (std::size_t{1} << 20)) continue;
    output.write(text);
    text.clear();
  }
  output.write(text);
  output.commit();
}

std::vector<float> read_bias(const fs::path& file) {
  TextFile text(file);
  std::vector<float> bias;
  std::vector<bool> named;
  const std::int64_t most = most_rows(text.bytes());
  while (text.next()) {
    if (is_blank(text.line())) continue;
    const auto output = static_cast<std::size_t>(text.take_integer("output neuron", 1, most)) - 1;
    const float value = text.take_float("bias");
    text.end_line();
    if (output >= bias.size()) {
      bias.resize(output + 1, 0.0F);
      named.resize(output + 1, false);
    }
    if (named[output]) {
      text.fail(
          fmt::format("output neuron {} has a bias already; keep one of the two", output + 1));
    }
    named[output] = true;
    bias[output] = value;
  }
  if (bias.empty()) throw InputError(file, "holds no bias; give lines of output neuron and value");
  return bias;
}

void write_bias(const fs::path& file, const std::vector<float>& bias, std::int64_t outputs) {
  OutputFile output(file);
  std::string text;
  for (std::int64_t row = 0; row < outputs; ++row) {
    fmt::format_to(std::back_inserter(text), "{}\t{}\n", row + 1,
                   bias[bias.size() == 1 ? 0 : static_cast<std::size_t>(row)]);
  }
  output.write(text);
  output.commit();
}

}  // namespace spdnn
