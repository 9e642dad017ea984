// spdnn-gpu convert: networks from one file format to another.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "command.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Options {
  fs::path from, to;
  std::string from_format, to_format;
  std::vector<std::int64_t> neurons;
  std::vector<float> bias;
  std::vector<std::string> activation, clip;
  bool json = false;
};

NetworkFormat format_named(const std::string& name, const fs::path& path) {
  const auto names = network_format_names();
  for (std::size_t f = 0; f < names.size(); ++f) {
    if (names[f] == name) return static_cast<NetworkFormat>(f);
  }
  return network_format_of(path);
}

float clip_of(const std::string& text) {
  if (text == "none") return std::numeric_limits<float>::infinity();
  float clip = 0.0F;
  if (!CLI::detail::lexical_cast(text, clip) || !std::isfinite(clip) || clip <= 0.0F) {
    throw InputError(
        fmt::format("--clip: '{}' is no upper bound; it must be a number above 0, or none", text));
  }
  return clip;
}

NetworkSettings settings_of(const Options& options) {
  NetworkSettings settings;
  settings.format = format_named(options.from_format, options.from);
  settings.neurons = options.neurons;
  settings.bias = options.bias;
  for (const std::string& name : options.activation) {
    settings.activation.push_back(name == "relu" ? Activation::relu : Activation::identity);
  }
  for (const std::string& text : options.clip) settings.clip.push_back(clip_of(text));
  return settings;
}

/// The shortest number that reads back as this float: -0.3, not -0.30000001192092896.
Json number(float value) { return Json::parse(fmt::to_string(value)); }

Json json_of(const Layer& layer) {
  const Epilogue h = layer_activation(layer);
  const std::vector<float>& bias = layer_bias(layer);
  Json json{{"kind", to_string(layer_kind(layer))},
            {"outputs", layer_outputs(layer)},
            {"inputs", layer_inputs(layer)},
            {"nnz", layer_weights(layer).nnz()},
            {"activation", h.lower == 0.0F ? "relu" : "identity"},
            {"clip", nullptr},
            {"bias", nullptr}};
  if (std::isfinite(h.upper)) json["clip"] = number(h.upper);
  if (bias.size() == 1) json["bias"] = number(bias.front());
  return json;
}

std::string json_text(const Options& options, NetworkFormat from, NetworkFormat to,
                      const Model& model, const std::vector<std::string>& left_out) {
  const auto names = network_format_names();
  const auto file = [&](const fs::path& path, NetworkFormat format) {
    return Json{{"path", path.string()}, {"format", names[static_cast<std::size_t>(format)]}};
  };
  Json layers = Json::array();
  for (const Layer& layer : model.layers) layers.push_back(json_of(layer));
  const Json json{{"from", file(options.from, from)},
                  {"to", file(options.to, to)},
                  {"nnz", model.edges()},
                  {"left_out", left_out},
                  {"layers", std::move(layers)}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

/// One JSON value where all are equal, else a list.
std::string json_of_all(const std::vector<Json>& values) {
  const bool equal = std::all_of(values.begin(), values.end(),
                                 [&](const Json& value) { return value == values.front(); });
  return (equal ? values.front() : Json(values)).dump();
}

/// What a configuration must say of the network for what was left out.
std::string remedy_of(const Model& model, const std::vector<std::string>& left_out) {
  std::vector<Json> bias, activation, clip;
  bool one_bias = true;
  for (const Layer& layer : model.layers) {
    // What is left out is of formats that hold linear layers alone.
    const auto& linear = std::get<SparseLinear>(layer);
    const Json json = json_of(layer);
    bias.push_back(number(linear.bias.front()));
    one_bias = one_bias && std::all_of(linear.bias.begin(), linear.bias.end(),
                                       [&](float b) { return b == linear.bias.front(); });
    activation.push_back(json["activation"]);
    clip.push_back(json["clip"].is_null() ? Json("none") : json["clip"]);
  }
  std::string text;
  for (const std::string& what : left_out) {
    if (what == "activations") {
      text += fmt::format("  to run it, give under /model: \"activation\": {}, \"clip\": {}\n",
                          json_of_all(activation), json_of_all(clip));
    } else if (one_bias) {
      text += fmt::format("  to run it, give under /model: \"bias\": {}\n", json_of_all(bias));
    } else {
      text += "  safetensors and the formats of one file a layer keep biases that differ\n";
    }
  }
  return text;
}

ExitStatus convert_command(const Options& options) {
  const NetworkSettings settings = settings_of(options);
  const NetworkFormat to = format_named(options.to_format, options.to);
  const Model model = read_network(options.from, settings);
  const std::vector<std::string> left_out = write_network(options.to, model, to);
  if (options.json) {
    print(json_text(options, *settings.format, to, model, left_out));
    return ExitStatus::done;
  }
  std::string text =
      fmt::format("{}: {} {}, {} → {}, {} nonzeros, written to {}\n", options.from.string(),
                  model.layers.size(), model.layers.size() == 1 ? "layer" : "layers",
                  model.inputs(), model.outputs(), model.edges(), options.to.string());
  if (!left_out.empty()) {
    text += fmt::format("  left out, since {} has no place for them: {}\n",
                        network_format_names()[static_cast<std::size_t>(to)],
                        fmt::join(left_out, ", ")) +
            remedy_of(model, left_out);
  }
  print(text);
  return ExitStatus::done;
}

}  // namespace

void add_convert(CLI::App& app, CommandLine& line) {
  CLI::App* command = app.add_subcommand("convert", "Write a network in another file format");
  const auto options = std::make_shared<Options>();
  const auto names = network_format_names();
  const std::vector<std::string> formats(names.begin(), names.end());
  command
      ->add_option("in", options->from,
                   "Network to read; {} in its name stands for the number of a layer")
      ->required()
      ->type_name("IN");
  command->add_option("out", options->to, "File to write, or files with {}")
      ->required()
      ->type_name("OUT");
  command->add_option("--from", options->from_format, "Format of IN; else by its extension")
      ->check(CLI::IsMember(formats));
  command->add_option("--to", options->to_format, "Format of OUT; else by its extension")
      ->check(CLI::IsMember(formats));
  command
      ->add_option("--neurons", options->neurons,
                   "Widths of a tsv network: one for all, or inputs, then outputs of each layer")
      ->delimiter(',')
      ->check(whole_number(1))
      ->type_name("N,…");
  command
      ->add_option("--bias", options->bias,
                   "Bias of every neuron: one for all layers, or one each; replaces that of IN")
      ->delimiter(',')
      ->type_name("B,…");
  command
      ->add_option("--activation", options->activation,
                   "relu or identity: one for all layers, or one each; replaces that of IN")
      ->delimiter(',')
      ->check(CLI::IsMember({"relu", "identity"}))
      ->type_name("H,…");
  command
      ->add_option(
          "--clip", options->clip,
          "Upper bound of the activation, or none: one for all layers, or one each; replaces "
          "that of IN")
      ->delimiter(',')
      ->type_name("C,…");
  command->add_flag("--json", options->json, "Print JSON");
  command->footer(
      "Formats: spdnn and safetensors hold all layers in a file; npz (SciPy CSR), mtx (Matrix "
      "Market), smtx and\ntsv (Graph Challenge) hold one, with biases beside STEM.EXT in "
      "STEM-bias.tsv.\n"
      "Example:\n"
      "  spdnn-gpu convert 'fc{}.npz' network.safetensors --activation relu,relu,identity");
  command->callback(
      [options, &line] { line.action = [options] { return convert_command(*options); }; });
}

}  // namespace spdnn
