// Turns a checked JSON document into a `RunConfig`.
#include "spdnn/config.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <utility>

#include "check.hpp"
#include "device_config.hpp"
#include "document.hpp"
#include "train_config.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using config::Document;
using config::Json;

constexpr std::array<std::pair<std::string_view, Strategy>, 7> strategies{
    {{"auto", Strategy::automatic},
     {"data", Strategy::data},
     {"model", Strategy::model},
     {"data_then_model", Strategy::data_then_model},
     {"task_manager", Strategy::task_manager},
     {"task_stealing", Strategy::task_stealing},
     {"grid", Strategy::grid}}};

/// "auto", or nothing at all, is no value.
template <class T>
std::optional<T> optional(const Json& object, const char* key) {
  if (!object.contains(key) || object[key].is_string()) return std::nullopt;
  return object[key].get<T>();
}

/// Calls `use` for a value, or for each item of a list; not at all where there is neither.
template <class Use>
void for_each_item(const Json& object, const char* key, const Use& use) {
  if (!object.contains(key)) return;
  const Json& value = object[key];
  if (value.is_array()) {
    std::for_each(value.begin(), value.end(), use);
  } else {
    use(value);
  }
}

/// A form `bytes`, or the word "auto".
std::optional<std::int64_t> bytes(const Json& object, const char* key) {
  if (!object.contains(key)) return std::nullopt;
  const Json& value = object[key];
  return value.is_string() ? config::parse_size(value.get_ref<const std::string&>())
                           : std::optional(value.get<std::int64_t>());
}

/// Reads a document that `config::check` accepted.
class Loader {
 public:
  Loader(const Document& document, RunConfig& out) : document_(document), out_(out) {}

  void load() {
    const Json& root = document_.root();
    out_.job = root["job"];
    load_model(root["model"]);
    load_input(root["input"]);
    load_verify(root["verify"]);
    out_.devices = config::device_specs(
        root, [this](const std::string& at, const std::string& what) { fail(at, what); });
    load_plan(root);
    const Json& compile = root["compile"];
    out_.compile = compile.is_string()
                       ? compile.get<std::string>()
                       : fmt::format("{}", fmt::join(compile.get<std::vector<std::string>>(), ","));
    out_.compile_seconds = optional<double>(root, "compile_seconds");
    out_.compile_cache = optional<bool>(root, "compile_cache");
    out_.deduplicate_images = root["deduplicate_images"];
    out_.merge_images = optional<bool>(root, "merge_images").value_or(out_.deduplicate_images);
    out_.skip_fixed_points =
        optional<bool>(root, "skip_fixed_points").value_or(out_.deduplicate_images);
    for (const Precision precision : {Precision::fp16, Precision::tf32, Precision::bf16}) {
      if (root["precision"] == to_string(precision)) out_.precision = precision;
    }
    out_.memory_limit = bytes(root, "memory_limit");
    out_.seed = root["seed"].get<std::uint64_t>();
    out_.cache = root["cache"];
    out_.save_outputs = root["save_outputs"];
    out_.comm = {root["comm"]["backend"], root["comm"]["patience_seconds"]};
    const Json& require = root["require"];
    out_.require = {optional<bool>(require, "verified"),
                    optional<double>(require, "max_infer_seconds"),
                    optional<double>(require, "min_nominal_edges_per_s"),
                    bytes(require, "max_host_bytes"), optional<double>(require, "min_accuracy")};
    load_train(root);
    if (out_.output.empty()) {
      out_.output = root.contains("output") ? fs::path(root["output"].get<std::string>())
                                            : fs::path("results") / out_.file.stem();
    }
  }

 private:
  [[noreturn]] void fail(const std::string& pointer, const std::string& message) const {
    throw InputError(fmt::format("{}: {}: {}", document_.place(pointer), pointer, message));
  }

  /// The data directory first, then the folder of the configuration. A `{}` stands for a number.
  [[nodiscard]] fs::path find(const Json& name, const std::string& pointer) const {
    fs::path path(name.get<std::string>());
    if (path.is_absolute()) {
      if (!network_exists(path)) fail(pointer, fmt::format("no file {}", path.string()));
      return path;
    }
    if (!out_.data_dir.empty() && network_exists(out_.data_dir / path)) {
      return out_.data_dir / path;
    }
    fs::path beside = out_.file.parent_path() / path;
    if (network_exists(beside)) return beside;
    fail(pointer,
         out_.data_dir.empty()
             ? fmt::format("no file {}; for one that lies elsewhere give --data-dir or set "
                           "SPDNN_DATA",
                           beside.string())
             : fmt::format("no file {}, and none {}", (out_.data_dir / path).string(),
                           beside.string()));
  }

  /// The bias given, or nothing where the challenge sets one.
  [[nodiscard]] std::optional<float> bias_for(const Json& model, std::int64_t neurons,
                                              const std::string& pointer) const {
    const auto given = optional<float>(model, "bias");
    if (!given && !graph_challenge_bias(neurons)) {
      fail(pointer + "/bias",
           fmt::format("missing; the challenge sets it for 1024, 4096, 16384 and 65536 neurons "
                       "only, not for {}",
                       neurons));
    }
    return given;
  }

  [[nodiscard]] static NetworkSettings network_settings(const Json& model) {
    NetworkSettings settings;
    if (model.contains("format")) {
      const auto names = network_format_names();
      settings.format = static_cast<NetworkFormat>(
          std::find(names.begin(), names.end(), model["format"].get<std::string>()) -
          names.begin());
    }
    for_each_item(model, "neurons", [&](const Json& n) { settings.neurons.push_back(n); });
    for_each_item(model, "bias", [&](const Json& b) { settings.bias.push_back(b); });
    for_each_item(model, "activation", [&](const Json& name) {
      settings.activation.push_back(name == "relu" ? Activation::relu : Activation::identity);
    });
    for_each_item(model, "clip", [&](const Json& c) {
      settings.clip.push_back(c.is_string() ? std::numeric_limits<float>::infinity()
                                            : c.get<float>());
    });
    return settings;
  }

  void load_model(const Json& model) {
    if (model.contains("graph_challenge")) {
      const Json& from = model["graph_challenge"];
      GraphChallengeModel to;
      to.neurons = from["neurons"];
      to.layers = from["layers"];
      to.bias = bias_for(from, to.neurons, "/model/graph_challenge");
      to.clip = from["clip"];
      out_.model = to;
    } else if (model.contains("radixnet")) {
      const Json& from = model["radixnet"];
      RadixNetModel to;
      to.spec = {from["neurons"], from["layers"], from["fold"], from["weight"],
                 from["seed"].get<std::uint64_t>()};
      try {
        validate(to.spec);
      } catch (const InputError& error) {
        fail("/model/radixnet", error.what());
      }
      to.bias = bias_for(from, to.spec.neurons, "/model/radixnet");
      to.clip = from["clip"];
      out_.model = to;
    } else if (model.contains("layers")) {
      out_.model = LayersModel{};
    } else {
      FileModel to;
      to.path = find(model["path"], "/model/path");
      to.settings = network_settings(model);
      out_.model = std::move(to);
    }
  }

  void load_input(const Json& input) {
    out_.input.repeat = input["repeat"];
    if (input.contains("graph_challenge")) {
      out_.input.source =
          GraphChallengeInput{optional<std::int64_t>(input["graph_challenge"], "images")};
    } else if (input.contains("idx")) {
      out_.input.source = IdxInput{find(input["idx"]["path"], "/input/idx/path"),
                                   optional<std::int64_t>(input["idx"], "images")};
    } else if (input.contains("digits")) {
      out_.input.source = DigitsInput{input["digits"]["images"]};
    } else if (input.contains("mnist")) {
      out_.input.source =
          LabelledInput{LabelledInput::Format::mnist, find(input["mnist"], "/input/mnist")};
    } else if (input.contains("cifar10")) {
      out_.input.source =
          LabelledInput{LabelledInput::Format::cifar10, find(input["cifar10"], "/input/cifar10")};
    } else if (input.contains("tsv")) {
      out_.input.source = tsv_input(input["tsv"]);
    } else {
      out_.input.source =
          FileInput{find(input["path"], "/input/path"), optional<std::int64_t>(input, "images")};
    }
  }

  TsvInput tsv_input(const Json& from) {
    TsvInput to;
    to.features = from["features"];
    to.classes = optional<std::int64_t>(from, "classes");
    to.samples = find(from["samples"], "/input/tsv/samples");
    to.labels = find(from["labels"], "/input/tsv/labels");
    if (from.contains("test_samples") != from.contains("test_labels")) {
      fail("/input/tsv", "test_samples and test_labels go together; give both or neither");
    }
    if (from.contains("test_samples")) {
      to.test_samples = find(from["test_samples"], "/input/tsv/test_samples");
      to.test_labels = find(from["test_labels"], "/input/tsv/test_labels");
    } else if (out_.job == "infer") {
      fail("/input/tsv", "has no test_samples, which job 'infer' runs");
    }
    return to;
  }

  void load_verify(const Json& verify) {
    const Json& categories = verify["categories"];
    out_.verify.categories = categories.is_string()   ? VerifyCategories::automatic
                             : categories.get<bool>() ? VerifyCategories::required
                                                      : VerifyCategories::off;
    if (verify.contains("truth")) {
      if (out_.verify.categories == VerifyCategories::off) {
        fail("/verify/truth", "is given, but /verify/categories is false: remove one of them");
      }
      out_.verify.truth = find(verify["truth"], "/verify/truth");
    }
    out_.verify.sample_against_reference = verify["sample_against_reference"];
  }

  void load_train(const Json& root) {
    const bool layers = root["model"].contains("layers");
    if (out_.job != "train") {
      if (layers) fail("/model/layers", "are to be trained: set /job to 'train'");
      if (root.contains("train")) fail("/train", "goes with job 'train'");
      return;
    }
    if (!layers) fail("/model", "has no layers, which job 'train' needs");
    if (!root.contains("train")) fail("/train", "missing; job 'train' needs it, if only as {}");
    if (!std::holds_alternative<LabelledInput>(out_.input.source) &&
        !std::holds_alternative<TsvInput>(out_.input.source)) {
      fail("/input", "has no labels; job 'train' needs mnist, cifar10 or tsv");
    }
    out_.train = config::train_spec(
        root, [this](const Json& name, const std::string& at) { return find(name, at); },
        [this](const std::string& at, const std::string& what) { fail(at, what); });
    out_.train->precision = out_.precision;
  }

  void load_plan(const Json& root) {
    const std::string& strategy = root["strategy"].get_ref<const std::string&>();
    for (const auto& [name, value] : strategies) {
      if (name == strategy) out_.plan.strategy = value;
    }
    const Json& split = root["split"];
    if (split.is_array()) {
      out_.plan.split = {SplitKind::ratios, split.get<std::vector<double>>()};
      check_ratios();
    } else {
      out_.plan.split.kind = split == "even" ? SplitKind::even : SplitKind::profiled;
    }
    out_.plan.model_ranks = root["model_ranks"];
    load_partition(root["partition"]);
    out_.plan.kernel = root["kernel"];
    out_.plan.chains = root["chains"];
    out_.cuda_graphs = root["cuda_graphs"];
    out_.plan.batch = optional<std::int64_t>(root, "batch");
  }

  /// A way of dividing rows by its name, or a file of owners.
  void load_partition(const Json& name) {
    const auto& text = name.get_ref<const std::string&>();
    PartitionSpec& spec = out_.partition;
    spec.seed = document_.root()["seed"].get<std::uint64_t>();
    const std::vector<std::string> models = partition_models();
    const bool named = std::find(models.begin(), models.end(), text) != models.end();
    spec.model = named || text == "auto" ? text : "file";
    if (spec.model == "file") spec.file = find_partition(name, models);
    const Strategy strategy = out_.plan.strategy;
    if (spec.chosen() && strategy != Strategy::model && strategy != Strategy::grid) {
      fail("/partition", "divides rows, which goes with strategy 'model' or 'grid'; set /strategy");
    }
    if (!spec.file.empty() && out_.plan.split.kind == SplitKind::ratios) {
      fail("/split",
           "ratios and a /partition that names the owner of every row do not go together; "
           "leave one of them out");
    }
  }

  [[nodiscard]] fs::path find_partition(const Json& name,
                                        const std::vector<std::string>& models) const {
    try {
      return find(name, "/partition");
    } catch (const InputError& error) {
      throw InputError(fmt::format("{}; or name a way of dividing: auto, {}", error.what(),
                                   fmt::join(models, ", ")));
    }
  }

  void check_ratios() const {
    const std::vector<double>& ratios = out_.plan.split.ratios;
    if (std::all_of(ratios.begin(), ratios.end(), [](double r) { return r == 0.0; })) {
      fail("/split", "all ratios are 0; at least one rank must have a share");
    }
    if (!out_.devices.empty() && ratios.size() != out_.devices.size()) {
      fail("/split", fmt::format("has {} ratios for {} devices; expected one for each",
                                 ratios.size(), out_.devices.size()));
    }
  }

  const Document& document_;
  RunConfig& out_;
};

/// All problems at once, as far as a person reads them.
[[noreturn]] void report(const Document& document, const std::vector<config::Problem>& problems) {
  constexpr std::size_t most = 10;
  std::string message;
  for (std::size_t i = 0; i < std::min(problems.size(), most); ++i) {
    const auto& [pointer, what] = problems[i];
    if (i > 0) message += '\n';
    message += fmt::format("{}: {}: {}", document.place(pointer),
                           pointer.empty() ? "the configuration" : pointer, what);
  }
  if (problems.size() > most) message += fmt::format("\nand {} more", problems.size() - most);
  throw InputError(message);
}

fs::path data_directory(const fs::path& given) {
  if (given.empty()) {
    const char* set = std::getenv("SPDNN_DATA");
    return set == nullptr ? fs::path() : fs::path(set);
  }
  std::error_code error;
  if (!fs::is_directory(given, error)) {
    throw InputError(fmt::format("--data-dir {}: no such folder", given.string()));
  }
  return given;
}

}  // namespace

RunConfig load_config(const fs::path& file, const ConfigOverrides& overrides) {
  Document document = Document::read(file);
  for (const std::string& argument : overrides.sets) document.set(argument);
  const std::vector<config::Problem> problems = config::check(document.root());
  if (!problems.empty()) report(document, problems);
  RunConfig out;
  out.file = file;
  out.data_dir = data_directory(overrides.data_dir);
  out.output = overrides.output;
  Loader(document, out).load();
  Json deciding = document.root();
  for (const char* local : {"$schema", "cache", "memory_limit", "output"}) deciding.erase(local);
  out.deciding = deciding.dump();
  return out;
}

}  // namespace spdnn
