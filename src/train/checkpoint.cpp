// Writing, finding, checking and reading checkpoints.
#include "checkpoint.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <system_error>

namespace spdnn::train {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "checkpoint-";
constexpr std::string_view kBestPrefix = "best-";
constexpr std::string_view kSuffix = ".safetensors";
constexpr const char* kKind = "spdnn.kind";

fs::path file_of(const fs::path& folder, std::string_view prefix, std::int64_t epoch) {
  return folder / fmt::format("{}{:06}{}", prefix, epoch, kSuffix);
}

/// The files of a folder whose names begin with `prefix`, by their epochs.
std::map<std::int64_t, fs::path> list_files(const fs::path& folder, std::string_view prefix) {
  std::map<std::int64_t, fs::path> found;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(prefix) || !name.ends_with(kSuffix)) continue;
    std::int64_t epoch = 0;
    const char* end = name.data() + name.size() - kSuffix.size();
    const auto [rest, problem] = std::from_chars(name.data() + prefix.size(), end, epoch);
    if (problem == std::errc() && rest == end) found[epoch] = entry.path();
  }
  return found;
}

/// Names of the arrays of one layer.
struct Names {
  std::string prefix;
  Names(const std::string& group, std::size_t layer)
      : prefix(fmt::format("{}layers.{}.", group, layer)) {}
  [[nodiscard]] std::string operator()(const char* what) const { return prefix + what; }
};

std::string group_of(std::size_t array) {
  return array == 0 ? "" : fmt::format("optimizer.{}.", array - 1);
}

/// What a checkpoint holds of these layers, without the data.
std::vector<Tensor> tensors_of(const std::vector<TrainLayer>& layers, std::size_t arrays) {
  std::vector<Tensor> tensors;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const Pattern& p = layers[l].pattern;
    if (std::holds_alternative<PoolForm>(layers[l].form)) continue;
    if (!p.is_dense()) {
      tensors.push_back({Names("", l)("row_offsets"), ElementType::i64, {p.rows() + 1}, {}});
      // The same bits: columns stay below 2³¹, and other programs know signed indices alone.
      tensors.push_back({Names("", l)("col_indices"), ElementType::i32, {p.nnz()}, {}});
    }
    for (std::size_t a = 0; a < arrays; ++a) {
      const Names name(group_of(a), l);
      tensors.push_back(p.is_dense()
                            ? Tensor{name("weight"), ElementType::f32, {p.rows(), p.cols()}, {}}
                            : Tensor{name("values"), ElementType::f32, {p.nnz()}, {}});
      tensors.push_back({name("bias"), ElementType::f32, {p.rows()}, {}});
    }
  }
  return tensors;
}

std::map<std::string, std::string> texts_of(const TrainSpec& spec, const TrainState& state,
                                            const std::vector<TrainLayer>& layers,
                                            std::size_t arrays) {
  std::map<std::string, std::string> texts{{kKind, "checkpoint"},
                                           {"spdnn.epoch", std::to_string(state.epoch)},
                                           {"spdnn.steps", std::to_string(state.progress.steps)},
                                           {"spdnn.seed", std::to_string(spec.seed)},
                                           {"spdnn.best_epoch", std::to_string(state.best_epoch)},
                                           {"spdnn.best_loss", fmt::format("{}", state.best_loss)},
                                           {"spdnn.config", spec.fingerprint},
                                           {"spdnn.layers", std::to_string(layers.size())},
                                           {"spdnn.optimizer_arrays", std::to_string(arrays)}};
  if (spec.precision == Precision::fp16) {
    const LossScale& scale = state.progress.loss_scale;
    texts["spdnn.loss_scale"] = fmt::format("{}", scale.scale);
    texts["spdnn.loss_scale_good"] = std::to_string(scale.good);
    texts["spdnn.loss_scale_taken"] = std::to_string(scale.taken);
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const TrainLayer& layer = layers[l];
    const std::string name = fmt::format("layers.{}.", l);
    if (const auto* pool = std::get_if<PoolForm>(&layer.form)) {
      add_window_texts(l, pool->kind, pool->window, texts);
      continue;
    }
    if (const auto* conv = std::get_if<ConvForm>(&layer.form)) {
      add_window_texts(l, LayerKind::conv2d, conv->window, texts);
    }
    texts[name + "inputs"] = std::to_string(layer.pattern.cols());
    texts[name + "activation"] = layer.activation.lower == 0.0F ? "relu" : "identity";
    if (std::isfinite(layer.activation.upper)) {
      texts[name + "clip"] = fmt::format("{}", layer.activation.upper);
    }
  }
  return texts;
}

/// A number among the texts of a checkpoint.
template <class T>
T number(const TensorFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  T value{};
  if (found != file.metadata().end()) {
    const char* end = found->second.data() + found->second.size();
    const auto [rest, problem] = std::from_chars(found->second.data(), end, value);
    if (problem == std::errc() && rest == end) return value;
  }
  throw InputError(file.path(), fmt::format("is no checkpoint that training can go on from: its "
                                            "metadata have no number '{}'",
                                            key));
}

StartLayer read_layer(const TensorFile& file, std::size_t l, std::int64_t inputs) {
  const Names name("", l);
  StartLayer layer;
  const std::span<const float> bias = file.values<float>(name("bias"), {-1});
  const std::int64_t rows = std::ssize(bias);
  std::span<const float> values;
  if (file.find(name("weight")) != nullptr) {
    values = file.values<float>(name("weight"), {rows, inputs});
    layer.pattern = Pattern::dense(rows, inputs);
  } else {
    values = file.values<float>(name("values"), {-1});
    const auto offsets = file.values<std::int64_t>(name("row_offsets"), {rows + 1});
    const auto indices = file.values<std::int32_t>(name("col_indices"), {std::ssize(values)});
    layer.pattern =
        Pattern(rows, inputs, {offsets.begin(), offsets.end()}, {indices.begin(), indices.end()});
  }
  layer.values.assign(values.begin(), values.end());
  layer.bias.assign(bias.begin(), bias.end());
  return layer;
}

/// One array of the optimiser's state of a layer, without its pattern.
StartLayer read_state(const TensorFile& file, std::size_t array, std::size_t l,
                      const StartLayer& layer) {
  const Names name(fmt::format("optimizer.{}.", array), l);
  const Pattern& pattern = layer.pattern;
  if (pattern.rows() == 0) return {};
  const std::span<const float> values =
      pattern.is_dense() ? file.values<float>(name("weight"), {pattern.rows(), pattern.cols()})
                         : file.values<float>(name("values"), {pattern.nnz()});
  const std::span<const float> bias = file.values<float>(name("bias"), {pattern.rows()});
  return {{}, {values.begin(), values.end()}, {bias.begin(), bias.end()}};
}

/// Which values of two configurations are others, with their pointers, the first few.
std::string differences(const std::string& stored, const std::string& own) {
  using Json = nlohmann::json;
  constexpr std::size_t kMost = 3;
  const Json before = Json::parse(stored, nullptr, false);
  const Json now = Json::parse(own, nullptr, false);
  if (before.is_discarded() || now.is_discarded()) return "model, input, train or seed differ";
  const Json changes = Json::diff(before, now);
  std::string text;
  for (std::size_t i = 0; i < std::min(changes.size(), kMost); ++i) {
    const Json::json_pointer at(changes[i]["path"].get<std::string>());
    const auto value = [&](const Json& of) {
      return of.contains(at) ? of.at(at).dump() : std::string("not there");
    };
    text += fmt::format("{}{} was {} and is {}", i > 0 ? "; " : "", at.to_string(), value(before),
                        value(now));
  }
  if (changes.size() > kMost) text += fmt::format("; and {} more", changes.size() - kMost);
  return text;
}

/// Why a checkpoint does not belong to a specification; empty where it does.
std::string mismatch(const Checkpoint& checkpoint, const TrainSpec& spec) {
  if (checkpoint.fingerprint != spec.fingerprint) {
    return fmt::format("it was written by another configuration ({})",
                       differences(checkpoint.fingerprint, spec.fingerprint));
  }
  if (checkpoint.layers.size() != spec.layers.size()) {
    return fmt::format("it has {} layers, and the configuration {}", checkpoint.layers.size(),
                       spec.layers.size());
  }
  if (checkpoint.state.epoch > spec.epochs) {
    return fmt::format("it was written after epoch {} of {}", checkpoint.state.epoch, spec.epochs);
  }
  return "";
}

/// The folder of checkpoints, made where there is none.
const fs::path& folder_of(const TrainSpec& spec) {
  const fs::path& folder = spec.checkpoint.folder;
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    throw SystemError(
        fmt::format("{}: {}; name another folder with --output", folder.string(), error.message()));
  }
  return folder;
}

/// Removes all but the `keep_last` newest checkpoints up to `epoch`, and the best parameters that
/// none of those names: they name the newest that is no newer than they are.
void remove_old(const TrainSpec& spec, std::int64_t epoch) {
  std::error_code error;  // a file that stays is no reason to end a run
  const auto files = list_files(spec.checkpoint.folder, kPrefix);
  std::int64_t kept = 0;
  std::int64_t oldest = epoch;
  for (auto it = files.rbegin(); it != files.rend(); ++it) {
    if (it->first <= epoch && kept < spec.checkpoint.keep_last) {
      ++kept;
      oldest = it->first;
    } else {
      fs::remove(it->second, error);
    }
  }
  const auto best = list_files(spec.checkpoint.folder, kBestPrefix);
  auto named = best.upper_bound(oldest);
  if (named != best.begin()) --named;
  for (auto it = best.begin(); it != best.end(); ++it) {
    if (it->first > epoch || (named != best.end() && it->first < named->first)) {
      fs::remove(it->second, error);
    }
  }
}

}  // namespace

CheckpointWriter::CheckpointWriter(CheckpointKind kind, const TrainSpec& spec,
                                   const TrainState& state, const std::vector<TrainLayer>& layers,
                                   std::size_t arrays)
    : kind_(kind),
      spec_(spec),
      epoch_(state.epoch),
      file_(file_of(folder_of(spec), kind == CheckpointKind::best ? kBestPrefix : kPrefix,
                    state.epoch),
            tensors_of(layers, arrays), texts_of(spec, state, layers, arrays - 1)) {}

void CheckpointWriter::add(std::size_t layer, const RowsView<float>& rows) {
  if (rows.pattern->rows() == 0) return;  // a pooling
  const auto write = [&](const Names& name, const char* what, const auto& data) {
    file_.write(name(what), std::as_bytes(std::span(data)));
  };
  const bool dense = rows.pattern->is_dense();
  for (std::size_t a = 0; a < rows.values.size(); ++a) {
    const Names name(group_of(a), layer);
    write(name, "bias", rows.biases[a]);
    if (a == 0 && !dense) write(name, "col_indices", rows.pattern->col_indices());
    if (a == 0 && !dense) write(name, "row_offsets", rows.pattern->row_offsets());
    write(name, dense ? "weight" : "values", rows.values[a]);
  }
}

void CheckpointWriter::commit() {
  file_.commit();
  if (kind_ == CheckpointKind::whole) remove_old(spec_, epoch_);
}

Checkpoint read_checkpoint(const fs::path& path) {
  const TensorFile file = read_safetensors(path);
  const auto kind = file.metadata().find(kKind);
  if (kind == file.metadata().end() || kind->second != "checkpoint") {
    throw InputError(path, "is a safetensors file, but no checkpoint of this program");
  }
  Checkpoint checkpoint;
  TrainState& state = checkpoint.state;
  state.epoch = number<std::int64_t>(file, "spdnn.epoch");
  state.progress.steps = number<std::int64_t>(file, "spdnn.steps");
  state.best_loss = number<double>(file, "spdnn.best_loss");
  state.best_epoch = number<std::int64_t>(file, "spdnn.best_epoch");
  if (file.metadata().contains("spdnn.loss_scale")) {
    LossScale& scale = state.progress.loss_scale;
    scale.scale = number<float>(file, "spdnn.loss_scale");
    scale.good = number<std::int64_t>(file, "spdnn.loss_scale_good");
    scale.taken = number<std::int64_t>(file, "spdnn.loss_scale_taken");
  }
  checkpoint.fingerprint = file.metadata().at("spdnn.config");
  const auto layers = number<std::size_t>(file, "spdnn.layers");
  for (std::size_t l = 0; l < layers; ++l) {
    const auto form = file.metadata().find(fmt::format("layers.{}.kind", l));
    if (form != file.metadata().end() && form->second != to_string(LayerKind::conv2d)) {
      checkpoint.layers.emplace_back();  // a pooling, which has no parameters
      continue;
    }
    const auto inputs = number<std::int64_t>(file, fmt::format("layers.{}.inputs", l));
    checkpoint.layers.push_back(read_layer(file, l, inputs));
  }
  checkpoint.optimizer.resize(number<std::size_t>(file, "spdnn.optimizer_arrays"));
  for (std::size_t i = 0; i < checkpoint.optimizer.size(); ++i) {
    for (std::size_t l = 0; l < layers; ++l) {
      checkpoint.optimizer[i].push_back(read_state(file, i, l, checkpoint.layers[l]));
    }
  }
  return checkpoint;
}

std::optional<Checkpoint> newest_checkpoint(const TrainSpec& spec,
                                            std::vector<std::string>& notes) {
  const auto files = list_files(spec.checkpoint.folder, kPrefix);
  std::string last;
  for (auto it = files.rbegin(); it != files.rend(); ++it) {
    try {
      Checkpoint checkpoint = read_checkpoint(it->second);
      const std::string why = mismatch(checkpoint, spec);
      if (why.empty()) return checkpoint;
      last = fmt::format("{}: {}", it->second.string(), why);
    } catch (const InputError& error) {
      last = error.what();
    }
    notes.push_back("not resumed from " + last);
  }
  if (!files.empty()) {
    throw InputError(
        fmt::format("{}: none of {} checkpoints can be resumed; the oldest: {}. Start "
                    "anew without --resume, name another folder with --output, or begin with a "
                    "checkpoint's parameters by /train/start_from",
                    spec.checkpoint.folder.string(), files.size(), last));
  }
  return std::nullopt;
}

std::string note_of_replaced(const TrainSpec& spec) {
  const auto files = list_files(spec.checkpoint.folder, kPrefix);
  if (files.empty()) return "";
  return fmt::format(
      "checkpoints of an earlier run, up to epoch {}, were there and were replaced; "
      "--resume would have gone on from them",
      files.rbegin()->first);
}

Checkpoint best_checkpoint(const TrainSpec& spec, const TrainState& state) {
  const fs::path file = file_of(spec.checkpoint.folder, kBestPrefix, state.best_epoch);
  try {
    Checkpoint best = read_checkpoint(file);
    const std::string why = mismatch(best, spec);
    if (why.empty()) return best;
    throw InputError(file, why);
  } catch (const InputError& error) {
    throw InputError(
        fmt::format("epoch {} was the best so far, but its parameters can't be read: "
                    "{}. Start anew without --resume",
                    state.best_epoch, error.what()));
  }
}

std::vector<LayerRows<float>> rows_of(const Checkpoint& checkpoint) {
  std::vector<LayerRows<float>> rows;
  for (std::size_t l = 0; l < checkpoint.layers.size(); ++l) {
    const StartLayer& from = checkpoint.layers[l];
    LayerRows<float>& layer = rows.emplace_back();
    layer.pattern = from.pattern;
    layer.values = {from.values};
    layer.biases = {from.bias};
    for (const std::vector<StartLayer>& array : checkpoint.optimizer) {
      layer.values.push_back(array[l].values);
      layer.biases.push_back(array[l].bias);
    }
  }
  return rows;
}

}  // namespace spdnn::train
