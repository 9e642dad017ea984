// spdnn-gpu inspect: what is in the files of a network, or in the network of a configuration.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "command.hpp"
#include "spdnn/config.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Options {
  ConfigOptions config;
  bool json = false;
};

struct Network {
  std::string name;
  std::string origin;
  std::vector<Csr> layers;
};

/// What one matrix looks like.
struct LayerFacts {
  std::int64_t rows = 0, cols = 0, nnz = 0, bytes = 0;
  std::int64_t shortest = 0, longest = 0;  ///< entries of a row
  std::int64_t dead_rows = 0;              ///< without entries
  double least = 0.0, most = 0.0;          ///< values
  bool shared_value = false;
  int index_bits = 0;
  friend bool operator==(const LayerFacts&, const LayerFacts&) = default;
};

LayerFacts facts_of(const Csr& matrix) {
  const CsrView& view = matrix.view();
  LayerFacts facts{view.rows, view.cols, view.nnz, view.bytes()};
  facts.shared_value = view.shared_value;
  facts.index_bits = view.index_type == DType::u16 ? 16 : 32;
  if (view.rows > 0) facts.shortest = std::numeric_limits<std::int64_t>::max();
  for (std::int64_t row = 0; row < view.rows; ++row) {
    const std::int64_t length = view.row_begin(row + 1) - view.row_begin(row);
    facts.shortest = std::min(facts.shortest, length);
    facts.longest = std::max(facts.longest, length);
    facts.dead_rows += length == 0 ? 1 : 0;
  }
  if (view.nnz > 0) facts.least = facts.most = view.value(0);
  for (std::int64_t k = 1; k < view.stored_values(); ++k) {
    facts.least = std::min(facts.least, view.value(k));
    facts.most = std::max(facts.most, view.value(k));
  }
  if (matrix.storage() != nullptr) matrix.storage()->release();
  return facts;
}

double bytes_per_nonzero(const LayerFacts& facts) {
  return facts.nnz == 0 ? 0.0 : static_cast<double>(facts.bytes) / static_cast<double>(facts.nnz);
}

std::string text_of(const LayerFacts& f) {
  std::string text = fmt::format("{} × {}, {} nonzeros, ", f.rows, f.cols, f.nnz);
  text += f.shortest == f.longest ? fmt::format("{} in every row, ", f.longest)
                                  : fmt::format("{} to {} in a row, ", f.shortest, f.longest);
  if (f.dead_rows > 0) text += fmt::format("{} rows empty, ", f.dead_rows);
  if (f.nnz > 0) {
    text += f.least == f.most ? fmt::format("all values {:.7g}, ", f.least)
                              : fmt::format("values {:.7g} to {:.7g}, ", f.least, f.most);
  }
  return text + fmt::format("{:.2f} bytes a nonzero", bytes_per_nonzero(f));
}

Json json_of(const LayerFacts& f) {
  return {{"rows", f.rows},
          {"cols", f.cols},
          {"nnz", f.nnz},
          {"bytes", f.bytes},
          {"bytes_per_nonzero", bytes_per_nonzero(f)},
          {"row_nnz", {{"min", f.shortest}, {"max", f.longest}}},
          {"dead_rows", f.dead_rows},
          {"values", {{"min", f.least}, {"max", f.most}, {"shared", f.shared_value}}},
          {"index_bits", f.index_bits}};
}

std::vector<Csr> weights_of(const Model& model) {
  std::vector<Csr> weights;
  for (const Layer& layer : model.layers) weights.push_back(layer_weights(layer));
  return weights;
}

Network read(const Options& options) {
  const fs::path& file = options.config.file;
  if (file.extension() != ".json") {
    Network network{file.string(), {}, {}};
    if (file.extension() == ".spdnn") {
      network.layers = read_cache(file, &network.origin);
    } else {
      network.layers = weights_of(read_network(file));
    }
    return network;
  }
  std::vector<std::string> notes;
  const Model model = load_model(load_config(file, options.config.overrides), notes);
  return {model.name, model.origin, weights_of(model)};
}

/// Equal neighbours share a line.
std::string layers_text(const std::vector<LayerFacts>& layers) {
  std::string text;
  for (std::size_t first = 0, end = 0; first < layers.size(); first = end) {
    for (end = first + 1; end < layers.size() && layers[end] == layers[first];) ++end;
    const std::string which = end - first == 1 ? fmt::format("matrix {}", first + 1)
                                               : fmt::format("matrices {} to {}", first + 1, end);
    text += fmt::format("  {}: {}\n", which, text_of(layers[first]));
  }
  return text;
}

ExitStatus inspect_command(const Options& options) {
  const Network network = read(options);
  std::vector<LayerFacts> layers;
  std::int64_t nnz = 0;
  std::int64_t bytes = 0;
  for (const Csr& layer : network.layers) {
    layers.push_back(facts_of(layer));
    nnz += layers.back().nnz;
    bytes += layers.back().bytes;
  }
  if (options.json) {
    Json list = Json::array();
    for (const LayerFacts& layer : layers) list.push_back(json_of(layer));
    const Json json{{"name", network.name},
                    {"origin", network.origin},
                    {"nnz", nnz},
                    {"bytes", bytes},
                    {"layers", std::move(list)}};
    print(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
    return ExitStatus::done;
  }
  print(fmt::format("{}: {} {}, {} nonzeros, {} bytes\n", network.name, layers.size(),
                    layers.size() == 1 ? "matrix" : "matrices", nnz, bytes) +
        (network.origin.empty() ? std::string() : fmt::format("  from {}\n", network.origin)) +
        layers_text(layers));
  return ExitStatus::done;
}

}  // namespace

void add_inspect(CLI::App& app, CommandLine& line) {
  CLI::App* command = app.add_subcommand(
      "inspect", "Describe the matrices of a network in files, or of a configuration's network");
  const auto options = std::make_shared<Options>();
  add_config_options(*command, options->config);
  command->get_option("config")
      ->description(
          "A file of a format that convert knows, or a configuration by its name in .json")
      ->type_name("FILE");
  command->add_flag("--json", options->json, "Print JSON");
  command->footer("Example:\n  spdnn-gpu inspect my_network.spdnn");
  command->callback(
      [options, &line] { line.action = [options] { return inspect_command(*options); }; });
}

}  // namespace spdnn
