// Networks as safetensors: layers.N.values, .row_offsets and .col_indices (CSR) or, read only, a
// dense layers.N.weight; layers.N.bias; N from 0; metadata layers.N.inputs, .activation and .clip;
// of layers that are not linear .kind and .window.
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>

#include "csr_arrays.hpp"
#include "network_format.hpp"
#include "safetensors.hpp"
#include "tsv_line.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

/// A window's numbers in the order in which metadata list them.
std::array<std::int64_t*, 10> window_numbers(Window2d& w) {
  return {&w.channels, &w.in_height, &w.in_width, &w.kernel_height, &w.kernel_width,
          &w.stride,   &w.pad_top,   &w.pad_left, &w.out_height,    &w.out_width};
}

std::string name_in(std::size_t layer, std::string_view what) {
  return fmt::format("layers.{}.{}", layer, what);
}

/// The text of a layer's metadata, else that of all layers; null where there is neither.
const std::string* find_text(const TensorFile& file, std::size_t layer, const std::string& what) {
  for (const std::string& key : {name_in(layer, what), what}) {
    const auto found = file.metadata().find(key);
    if (found != file.metadata().end()) return &found->second;
  }
  return nullptr;
}

[[noreturn]] void refuse(const TensorFile& file, std::size_t layer, std::string_view what,
                         const std::string& found, std::string_view allowed) {
  throw InputError(file.path(), fmt::format("metadata {} is {}; it must be {}",
                                            name_in(layer, what), quote(found), allowed));
}

std::optional<Activation> read_activation(const TensorFile& file, std::size_t layer) {
  const std::string* const text = find_text(file, layer, "activation");
  if (text == nullptr) return std::nullopt;
  if (*text == "relu") return Activation::relu;
  if (*text == "identity") return Activation::identity;
  refuse(file, layer, "activation", *text, "relu or identity");
}

std::optional<float> read_clip(const TensorFile& file, std::size_t layer) {
  const std::string* const text = find_text(file, layer, "clip");
  if (text == nullptr) return std::nullopt;
  float clip = 0.0F;
  if (read_finite_float(*text, clip) != text->size() || clip <= 0.0F) {
    refuse(file, layer, "clip", *text, "a number above 0; leave it out for none");
  }
  return clip;
}

/// Columns of a layer: what the metadata say, else the outputs of the layer before.
std::int64_t read_inputs(const TensorFile& file, std::size_t layer,
                         const std::vector<StoredLayer>& before) {
  const auto found = file.metadata().find(name_in(layer, "inputs"));
  if (found != file.metadata().end()) {
    std::optional<std::string> error;
    const auto inputs = read_id(found->second, {"inputs", kMaxNeurons, 0}, "", error);
    if (inputs) return *inputs;
    throw InputError(file.path(), fmt::format("metadata {}: {}", found->first, *error));
  }
  if (!before.empty()) return before.back().weights.rows();
  throw InputError(file.path(),
                   fmt::format("has no metadata {}, which say how many inputs the first "
                               "layer takes; write the file with them",
                               name_in(layer, "inputs")));
}

/// Kind and window of a layer; one without is linear.
void read_window(const TensorFile& file, std::size_t layer, StoredLayer& stored) {
  const auto kind = file.metadata().find(name_in(layer, "kind"));
  if (kind == file.metadata().end() || kind->second == to_string(LayerKind::linear)) return;
  bool known = false;
  for (const LayerKind k : {LayerKind::conv2d, LayerKind::max_pool, LayerKind::average_pool}) {
    if (kind->second != to_string(k)) continue;
    stored.kind = k;
    known = true;
  }
  if (!known) {
    refuse(file, layer, "kind", kind->second, "linear, conv2d, max_pool or avg_pool");
  }
  const auto text = file.metadata().find(name_in(layer, "window"));
  const std::string numbers = text == file.metadata().end() ? "" : text->second;
  Window2d& w = stored.window;
  const char* at = numbers.data();
  const char* const end = at + numbers.size();
  for (std::int64_t* number : window_numbers(w)) {
    const auto [rest, problem] = std::from_chars(at, end, *number);
    const bool last = number == &w.out_width;
    if (problem != std::errc() || *number < 0 || *number > kMaxNeurons ||
        (last ? rest != end : rest == end || *rest != ' ')) {
      refuse(file, layer, "window", numbers,
             "ten numbers: channels, height and width of the input, height and width of the "
             "window, stride, padding above and left, height and width of the output");
    }
    at = last ? rest : rest + 1;
  }
}

const Tensor& need(const TensorFile& file, const std::string& name) {
  if (const Tensor* const tensor = file.find(name)) return *tensor;
  throw InputError(
      file.path(),
      fmt::format("has no tensor {}; a sparse layer N, from 0, is layers.N.values, "
                  "layers.N.row_offsets and layers.N.col_indices, a dense one layers.N.weight",
                  quote(name)));
}

/// The nonzeros of a dense matrix.
Csr sparse_of(const fs::path& file, const Tensor& weight) {
  const auto fits = [](std::int64_t size) { return size >= 1 && size <= kMaxNeurons; };
  if (weight.shape.size() != 2 || !fits(weight.shape[0]) || !fits(weight.shape[1])) {
    throw InputError(file, fmt::format("{} has the shape {}, but must be [outputs, inputs], each "
                                       "from 1 to {}",
                                       quote(weight.name), shape_text(weight.shape), kMaxNeurons));
  }
  Tensor flat = weight;
  flat.shape = {weight.shape[0] * weight.shape[1]};
  const std::vector<float> values = finite_floats(file, flat);
  std::vector<std::int64_t> row_offsets{0};
  std::vector<std::uint32_t> col_indices;
  std::vector<float> nonzeros;
  for (std::size_t k = 0; k < values.size();) {
    for (std::int64_t col = 0; col < weight.shape[1]; ++col, ++k) {
      if (values[k] == 0.0F) continue;
      col_indices.push_back(static_cast<std::uint32_t>(col));
      nonzeros.push_back(values[k]);
    }
    row_offsets.push_back(std::ssize(col_indices));
  }
  return make_csr(weight.shape[0], weight.shape[1], std::move(row_offsets), std::move(col_indices),
                  std::move(nonzeros));
}

Csr read_weights(const TensorFile& file, std::size_t layer,
                 const std::vector<StoredLayer>& before) {
  if (const Tensor* const dense = file.find(name_in(layer, "weight"))) {
    return sparse_of(file.path(), *dense);
  }
  const Tensor& values = need(file, name_in(layer, "values"));
  const Tensor& offsets = need(file, name_in(layer, "row_offsets"));
  const Tensor& indices = need(file, name_in(layer, "col_indices"));
  return csr_of_arrays(file.path(), offsets, indices, values, std::nullopt,
                       read_inputs(file, layer, before));
}

bool has_layer(const TensorFile& file, std::size_t layer) {
  return file.find(name_in(layer, "values")) != nullptr ||
         file.find(name_in(layer, "weight")) != nullptr ||
         file.metadata().contains(name_in(layer, "kind"));
}

/// How a layer is kept while it is written: tensors are views.
struct Arrays {
  std::vector<std::int64_t> row_offsets;
  std::vector<std::int32_t> col_indices;
  std::vector<float> values, bias;
};

Arrays arrays_of(const Layer& layer) {
  const CsrView& view = layer_weights(layer).view();
  Arrays arrays;
  for (std::int64_t row = 0; row <= view.rows; ++row) {
    arrays.row_offsets.push_back(view.row_begin(row));
  }
  arrays.col_indices.reserve(static_cast<std::size_t>(view.nnz));
  arrays.values.reserve(static_cast<std::size_t>(view.nnz));
  for (std::int64_t k = 0; k < view.nnz; ++k) {
    arrays.col_indices.push_back(static_cast<std::int32_t>(view.col(k)));
    arrays.values.push_back(static_cast<float>(view.value(k)));
  }
  arrays.bias = layer_bias(layer);
  arrays.bias.resize(static_cast<std::size_t>(view.rows), arrays.bias.front());
  return arrays;
}

}  // namespace

void add_window_texts(std::size_t layer, LayerKind kind, Window2d window,
                      std::map<std::string, std::string>& metadata) {
  if (kind == LayerKind::linear) return;
  metadata[name_in(layer, "kind")] = to_string(kind);
  std::string& text = metadata[name_in(layer, "window")];
  for (const std::int64_t* number : window_numbers(window)) {
    text += (text.empty() ? "" : " ") + std::to_string(*number);
  }
}

std::vector<StoredLayer> read_safetensors_layers(const fs::path& path) {
  const TensorFile file = read_safetensors(path);
  std::vector<StoredLayer> layers;
  do {
    const std::size_t l = layers.size();
    StoredLayer layer;
    read_window(file, l, layer);
    if (layer.kind == LayerKind::max_pool || layer.kind == LayerKind::average_pool) {
      layers.push_back(std::move(layer));
      continue;
    }
    layer.weights = read_weights(file, l, layers);
    if (const Tensor* const bias = file.find(name_in(l, "bias"))) {
      layer.bias = finite_floats(path, *bias);
      const auto biases = std::ssize(layer.bias);
      if (biases != layer.weights.rows() && biases != 1) {
        throw InputError(path, fmt::format("{} has {} elements, but the layer has {} outputs; give "
                                           "one each, or one for all",
                                           quote(bias->name), biases, layer.weights.rows()));
      }
    }
    layer.activation = read_activation(file, l);
    layer.clip = read_clip(file, l);
    layers.push_back(std::move(layer));
  } while (has_layer(file, layers.size()));
  return layers;
}

void write_safetensors_layers(const fs::path& path, const Model& model) {
  std::vector<Arrays> arrays;
  std::vector<Tensor> tensors;
  std::map<std::string, std::string> metadata;
  arrays.reserve(model.layers.size());
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    const Layer& layer = model.layers[l];
    add_window_texts(l, layer_kind(layer), layer_window(layer), metadata);
    if (std::holds_alternative<Pool2d>(layer)) continue;
    const Arrays& a = arrays.emplace_back(arrays_of(layer));
    tensors.push_back(make_tensor(name_in(l, "row_offsets"), a.row_offsets));
    tensors.push_back(make_tensor(name_in(l, "col_indices"), a.col_indices));
    tensors.push_back(make_tensor(name_in(l, "values"), a.values));
    tensors.push_back(make_tensor(name_in(l, "bias"), a.bias));
    metadata[name_in(l, "inputs")] = fmt::to_string(layer_weights(layer).cols());
    const Epilogue h = layer_activation(layer);
    metadata[name_in(l, "activation")] = h.lower == 0.0F ? "relu" : "identity";
    if (std::isfinite(h.upper)) metadata[name_in(l, "clip")] = fmt::to_string(h.upper);
  }
  write_safetensors(path, std::move(tensors), std::move(metadata));
}

}  // namespace spdnn
