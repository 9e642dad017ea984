// Networks in files: which format, which files, and what the files say against what the user says.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <system_error>

#include "network_format.hpp"
#include "tsv_line.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
/// Layers of a network.
constexpr std::size_t kMaxLayers = 1'000'000;

/// By `NetworkFormat`.
constexpr std::array<std::string_view, 6> kNames{"spdnn", "safetensors", "npz",
                                                 "mtx",   "smtx",        "tsv"};

bool holds_all_layers(NetworkFormat format) {
  return format == NetworkFormat::spdnn || format == NetworkFormat::safetensors;
}

bool is_pattern(const fs::path& path) {
  return path.filename().string().find("{}") != std::string::npos;
}

/// `path` with `{}` in its file name replaced by a number.
fs::path numbered(const fs::path& path, std::size_t number) {
  std::string name = path.filename().string();
  if (const auto at = name.find("{}"); at != std::string::npos) {
    name.replace(at, 2, std::to_string(number));
  }
  return path.parent_path() / name;
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

/// Where the biases of a layer in `file` lie.
fs::path bias_file(const fs::path& file) {
  return file.parent_path() / (file.stem().string() + "-bias.tsv");
}

Csr read_matrix(const fs::path& file, NetworkFormat format) {
  switch (format) {
    case NetworkFormat::npz: return read_npz(file);
    case NetworkFormat::mtx: return read_matrix_market(file);
    default: return read_smtx(file);
  }
}

void write_matrix(const fs::path& file, const CsrView& matrix, NetworkFormat format) {
  switch (format) {
    case NetworkFormat::npz: return write_npz(file, matrix);
    case NetworkFormat::mtx: return write_matrix_market(file, matrix);
    case NetworkFormat::smtx: return write_smtx(file, matrix);
    default: return write_layer_tsv(file, matrix);
  }
}

std::vector<StoredLayer> read_single_files(const fs::path& path, NetworkFormat format,
                                           const NetworkSettings& settings) {
  const std::vector<fs::path> files = network_files(path);
  std::vector<std::vector<float>> biases;
  for (const fs::path& file : files) {
    const fs::path bias = bias_file(file);
    biases.push_back(is_there(bias) ? read_bias(bias) : std::vector<float>{});
  }
  std::vector<StoredLayer> layers(files.size());
  if (format == NetworkFormat::tsv) {
    std::vector<Csr> weights = read_tsv_layers(files, settings.neurons, biases);
    for (std::size_t l = 0; l < layers.size(); ++l) layers[l].weights = std::move(weights[l]);
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    if (format != NetworkFormat::tsv) layers[l].weights = read_matrix(files[l], format);
    const std::int64_t outputs = layers[l].weights.rows();
    if (std::ssize(biases[l]) > outputs) {
      throw InputError(bias_file(files[l]), fmt::format("names output neuron {}, but the layer has "
                                                        "{}",
                                                        biases[l].size(), outputs));
    }
    if (biases[l].empty()) continue;
    biases[l].resize(static_cast<std::size_t>(outputs), 0.0F);
    layers[l].bias = std::move(biases[l]);
  }
  return layers;
}

/// What the user says of layer `l`; null where nothing is said.
template <class T>
const T* said_of(const std::vector<T>& list, std::size_t l, std::size_t layers, const char* what,
                 const fs::path& file) {
  if (list.empty()) return nullptr;
  if (list.size() != 1 && list.size() != layers) {
    throw InputError(file, fmt::format("{}: {} values for {} layers; give one, or one each", what,
                                       list.size(), layers));
  }
  return &list[list.size() == 1 ? 0 : l];
}

Model model_of(const fs::path& file, std::vector<StoredLayer> stored,
               const NetworkSettings& settings) {
  Model model;
  for (std::size_t l = 0; l < stored.size(); ++l) {
    StoredLayer& from = stored[l];
    const float* const bias = said_of(settings.bias, l, stored.size(), "bias", file);
    const Activation* const activation =
        said_of(settings.activation, l, stored.size(), "activation", file);
    const float* const clip = said_of(settings.clip, l, stored.size(), "clip", file);
    if (from.kind == LayerKind::max_pool || from.kind == LayerKind::average_pool) {
      model.layers.emplace_back(Pool2d{from.window, from.kind});
      continue;
    }
    std::vector<float> biases = bias != nullptr ? std::vector{*bias} : std::move(from.bias);
    if (biases.empty()) biases = {0.0F};
    const Activation h =
        activation != nullptr ? *activation : from.activation.value_or(Activation::relu);
    const Epilogue bounds = {h == Activation::relu ? 0.0F : -kInfinity,
                             clip != nullptr ? *clip : from.clip.value_or(kInfinity)};
    if (from.kind == LayerKind::conv2d) {
      model.layers.emplace_back(
          SparseConv2d{from.window, std::move(from.weights), std::move(biases), bounds});
    } else {
      model.layers.emplace_back(SparseLinear{std::move(from.weights), std::move(biases), bounds});
    }
  }
  return model;
}

/// Files that an earlier network left where this one's are read from, and would be taken for its
/// own.
void refuse_leftovers(const fs::path& path, std::size_t layers) {
  if (!is_pattern(path)) return;
  for (const std::size_t number : {std::size_t{0}, layers + 1}) {
    if (!is_there(numbered(path, number))) continue;
    throw InputError(numbered(path, number),
                     fmt::format("is there already and would be read as one more layer than the {} "
                                 "that are to be written; remove it or choose another name",
                                 layers));
  }
}

void write_single_files(const fs::path& path, const Model& model, NetworkFormat format) {
  if (!is_pattern(path) && model.layers.size() != 1) {
    throw InputError(
        path,
        fmt::format("{} layers can't be written to one file of this format; name "
                    "a file for each with {{}} for its number, such as {}",
                    model.layers.size(),
                    (path.parent_path() / (path.stem().string() + "{}" + path.extension().string()))
                        .string()));
  }
  refuse_leftovers(path, model.layers.size());
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    const auto& layer = std::get<SparseLinear>(model.layers[l]);
    const fs::path file = numbered(path, l + 1);
    write_matrix(file, layer.weights.view(), format);
    // A row of zeros says how many outputs there are where the lines do not.
    const bool zero =
        std::all_of(layer.bias.begin(), layer.bias.end(), [](float b) { return b == 0.0F; });
    if (!zero || format == NetworkFormat::tsv || is_there(bias_file(file))) {
      write_bias(bias_file(file), layer.bias, layer.outputs());
    }
  }
}

}  // namespace

std::span<const std::string_view> network_format_names() { return kNames; }

NetworkFormat network_format_of(const fs::path& path) {
  std::string extension = path.extension().string();
  if (extension.starts_with('.')) extension.erase(0, 1);
  const auto found = std::find(kNames.begin(), kNames.end(), extension);
  if (found == kNames.end()) {
    throw InputError(path,
                     fmt::format("the extension {} stands for no format of networks; there are {}: "
                                 "name the file so, or say which by --from, --to or /model/format",
                                 quote(extension), fmt::join(kNames, ", ")));
  }
  return static_cast<NetworkFormat>(found - kNames.begin());
}

bool network_exists(const fs::path& path) {
  return is_there(numbered(path, 0)) || is_there(numbered(path, 1));
}

std::vector<fs::path> network_files(const fs::path& path) {
  std::vector<fs::path> files;
  if (!is_pattern(path)) {
    files.push_back(path);
  } else {
    for (std::size_t n = is_there(numbered(path, 0)) ? 0 : 1; is_there(numbered(path, n)); ++n) {
      files.push_back(numbered(path, n));
      if (files.size() > kMaxLayers) {
        throw InputError(path, fmt::format("stands for more than {} layers", kMaxLayers));
      }
    }
  }
  if (!network_exists(path)) {
    throw InputError(path, is_pattern(path) ? fmt::format("no file {}, nor one numbered 0; {{}} is "
                                                          "the number of a layer",
                                                          numbered(path, 1).string())
                                            : "no such file");
  }
  return files;
}

Model read_network(const fs::path& path, const NetworkSettings& settings) {
  const NetworkFormat format = settings.format ? *settings.format : network_format_of(path);
  if (!settings.neurons.empty() && format != NetworkFormat::tsv) {
    throw InputError(path, "neurons: only tsv needs widths; the others hold them: leave them out");
  }
  std::vector<StoredLayer> layers;
  std::string origin;
  if (format == NetworkFormat::spdnn) {
    for (Csr& weights : read_cache(path, &origin)) {
      layers.push_back({std::move(weights), {}, std::nullopt, std::nullopt});
    }
  } else if (format == NetworkFormat::safetensors) {
    layers = read_safetensors_layers(path);
  } else {
    layers = read_single_files(path, format, settings);
  }
  Model model = model_of(path, std::move(layers), settings);
  model.name = path.filename().string();
  model.origin = origin;
  try {
    validate(model);
  } catch (const InputError& error) {
    throw InputError(path, error.what());
  }
  return model;
}

std::vector<std::string> write_network(const fs::path& path, const Model& model,
                                       std::optional<NetworkFormat> given) {
  const NetworkFormat format = given ? *given : network_format_of(path);
  if (holds_all_layers(format) && is_pattern(path)) {
    throw InputError(path, "one file of this format holds all layers; leave out the {}");
  }
  if (format != NetworkFormat::safetensors && !all_linear(model)) {
    throw InputError(path,
                     "this format holds linear layers alone; write a network with "
                     "convolutions or poolings as safetensors");
  }
  std::vector<std::string> left_out;
  bool has_bias = false, has_activation = false;
  for (const Layer& layer : model.layers) {
    const std::vector<float>& bias = layer_bias(layer);
    has_bias = has_bias || std::any_of(bias.begin(), bias.end(), [](float b) { return b != 0.0F; });
    has_activation = has_activation || layer_activation(layer) != Epilogue{0.0F, kInfinity};
  }
  if (format == NetworkFormat::spdnn) {
    std::vector<Csr> weights;
    for (const Layer& layer : model.layers) weights.push_back(layer_weights(layer));
    write_cache(path, weights, model.origin);
    if (has_bias) left_out.emplace_back("biases");
  } else if (format == NetworkFormat::safetensors) {
    write_safetensors_layers(path, model);
  } else {
    write_single_files(path, model, format);
  }
  if (has_activation && format != NetworkFormat::safetensors) left_out.emplace_back("activations");
  return left_out;
}

}  // namespace spdnn
