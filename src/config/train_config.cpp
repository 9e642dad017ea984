// Reads layers, optimiser, schedule and rewiring of a configuration that trains.
#include "train_config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

namespace spdnn::config {
namespace {

template <class T, std::size_t N>
T word(const Json& value, const std::array<std::pair<std::string_view, T>, N>& words) {
  const std::string& name = value.get_ref<const std::string&>();
  for (const auto& [known, meaning] : words) {
    if (known == name) return meaning;
  }
  throw std::logic_error("a word that the table of keys has and the loader has not: " + name);
}

template <class T>
std::optional<T> optional(const Json& object, const char* key) {
  return object.contains(key) ? std::optional(object[key].get<T>()) : std::nullopt;
}

constexpr std::array<std::pair<std::string_view, Topology>, 5> topologies{
    {{"dense", Topology::dense},
     {"random", Topology::random},
     {"radixnet", Topology::radixnet},
     {"mask", Topology::mask},
     {"magnitude", Topology::magnitude}}};
constexpr std::array<std::pair<std::string_view, OptimizerKind>, 5> optimizers{
    {{"sgd", OptimizerKind::sgd},
     {"momentum", OptimizerKind::momentum},
     {"nesterov", OptimizerKind::nesterov},
     {"adam", OptimizerKind::adam},
     {"adamw", OptimizerKind::adamw}}};
constexpr std::array<std::pair<std::string_view, ScheduleKind>, 3> schedules{
    {{"constant", ScheduleKind::constant},
     {"step", ScheduleKind::step},
     {"cosine", ScheduleKind::cosine}}};
constexpr std::array<std::pair<std::string_view, RewireMethod>, 3> rewirings{
    {{"none", RewireMethod::none}, {"set", RewireMethod::set}, {"rigl", RewireMethod::rigl}}};
constexpr std::array<std::pair<std::string_view, InputSplit>, 3> input_splits{
    {{"auto", InputSplit::automatic},
     {"never", InputSplit::never},
     {"every_second", InputSplit::every_second}}};

/// Which keys a kind of layer has, beside `kind` and `count`: those it needs, and those it may
/// have.
struct KindKeys {
  LayerKind kind;
  std::vector<std::string_view> needs, may;
};
const std::vector<KindKeys>& kinds() {
  static const std::vector<KindKeys> all = {
      {LayerKind::linear,
       {"outputs"},
       {"topology", "density", "fold", "mask", "activation", "clip"}},
      {LayerKind::conv2d,
       {"out_channels", "kernel"},
       {"stride", "padding", "groups", "topology", "density", "mask", "activation", "clip",
        "fold"}},
      {LayerKind::max_pool, {"kernel"}, {"stride", "padding", "fold"}},
      {LayerKind::average_pool, {"kernel"}, {"stride", "padding", "fold"}}};
  return all;
}

/// The layer's kind and its window, once every key goes with the kind.
LayerSpec shape_spec(const Json& from, const std::string& pointer, const Fail& fail) {
  const std::string& name = from["kind"].get_ref<const std::string&>();
  const auto known = std::find_if(kinds().begin(), kinds().end(),
                                  [&](const KindKeys& k) { return to_string(k.kind) == name; });
  const auto among = [](const std::vector<std::string_view>& keys, const std::string& key) {
    return std::find(keys.begin(), keys.end(), key) != keys.end();
  };
  for (const auto& [key, value] : from.items()) {
    if (key == "kind" || key == "count") continue;
    if (!among(known->needs, key) && !among(known->may, key)) {
      fail(pointer + "/" + key, fmt::format("does not go with kind '{}'", name));
    }
  }
  for (const std::string_view key : known->needs) {
    if (!from.contains(key)) {
      fail(fmt::format("{}/{}", pointer, key), fmt::format("missing; kind '{}' needs it", name));
    }
  }
  const bool pool = known->kind == LayerKind::max_pool || known->kind == LayerKind::average_pool;
  LayerSpec layer;
  layer.kind = known->kind;
  layer.outputs = from.value("outputs", from.value("out_channels", std::int64_t{0}));
  layer.kernel = from.value("kernel", std::int64_t{1});
  layer.stride = from.value("stride", pool ? layer.kernel : 1);
  layer.groups = from.value("groups", std::int64_t{1});
  if (pool) layer.padding = 0;
  if (from.contains("padding")) {
    layer.padding =
        from["padding"].is_string() ? std::nullopt : optional<std::int64_t>(from, "padding");
  }
  return layer;
}

LayerSpec layer_spec(const Json& from, const std::string& pointer, const FindFile& find,
                     const Fail& fail) {
  LayerSpec layer = shape_spec(from, pointer, fail);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (layer.kind == LayerKind::max_pool || layer.kind == LayerKind::average_pool) {
    layer.topology = Topology::dense;
    layer.activation = {-kInfinity, kInfinity};
    return layer;
  }
  const std::string name = from.value("topology", "random");
  layer.topology = word(Json(name), topologies);
  const bool wants_density =
      layer.topology == Topology::random || layer.topology == Topology::magnitude;
  if (wants_density != from.contains("density")) {
    fail(pointer + "/density", wants_density ? fmt::format("missing; topology '{}' needs it", name)
                                             : fmt::format("does not go with topology '{}'", name));
  }
  if (wants_density) layer.density = from["density"];
  if ((layer.topology == Topology::mask) != from.contains("mask")) {
    fail(pointer + "/mask", "goes with topology 'mask', which needs it");
  }
  if (layer.topology == Topology::mask) layer.mask = find(from["mask"], pointer + "/mask");
  layer.fold = from["fold"];
  layer.activation = {from.value("activation", "relu") == "relu" ? 0.0F : -kInfinity,
                      optional<float>(from, "clip").value_or(kInfinity)};
  return layer;
}

OptimizerSpec optimizer_spec(const Json& from) {
  return {word(from["kind"], optimizers),
          from["rate"],
          from["momentum"],
          from["beta1"],
          from["beta2"],
          from["epsilon"],
          from["weight_decay"],
          optional<double>(from, "clip_norm")};
}

/// What decides the bits of the result: everything but where it goes and what is kept of it.
std::string fingerprint_of(const Json& root) {
  Json deciding{{"model", root["model"]},
                {"input", root["input"]},
                {"train", root["train"]},
                {"seed", root["seed"]}};
  if (root["precision"] != "fp32") deciding["precision"] = root["precision"];
  for (const char* only_how : {"checkpoint", "input_split", "link", "rebalance"}) {
    deciding["train"].erase(only_how);
  }
  return deciding.dump();
}

}  // namespace

TrainSpec train_spec(const Json& root, const FindFile& find, const Fail& fail) {
  const Json& from = root["train"];
  TrainSpec spec;
  const Json& layers = root["model"]["layers"];
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const LayerSpec layer = layer_spec(layers[i], fmt::format("/model/layers/{}", i), find, fail);
    spec.layers.insert(spec.layers.end(), layers[i]["count"].get<std::size_t>(), layer);
  }
  spec.density_rule = root["model"]["density_rule"] == "erdos_renyi" ? DensityRule::erdos_renyi
                                                                     : DensityRule::as_given;
  spec.loss = from["loss"] == "cross_entropy" ? Loss::cross_entropy : Loss::mean_squared_error;
  spec.epochs = from["epochs"];
  spec.batch = from["batch"];
  spec.optimizer = optimizer_spec(from["optimizer"]);
  const Json& schedule = from["schedule"];
  spec.schedule = {word(schedule["kind"], schedules), schedule["warmup_epochs"],
                   schedule["every_epochs"], schedule["factor"], schedule["last"]};
  const Json& rewire = from["rewire"];
  spec.rewire = {word(rewire["method"], rewirings), rewire["every_steps"], rewire["fraction"],
                 rewire["until"]};
  for (std::size_t l = 0; l < spec.layers.size(); ++l) {
    if (spec.rewire.method != RewireMethod::none && spec.layers[l].groups > 1) {
      fail("/train/rewire/method", fmt::format("connections of layer {}, which has groups, stay as "
                                               "they are; leave out groups or rewiring",
                                               l + 1));
    }
  }
  spec.loss_scale = {from["loss_scale"]["first"], from["loss_scale"]["every_steps"]};
  spec.validation = from["validation_images"];
  spec.patience = optional<std::int64_t>(from, "patience");
  if (spec.patience && spec.validation == 0) {
    fail("/train/patience", "needs images to measure: set /train/validation_images");
  }
  spec.restore_best = from["restore_best"];
  if (spec.restore_best && spec.validation == 0) {
    fail("/train/restore_best", "needs images to measure: set /train/validation_images");
  }
  if (from.contains("start_from")) {
    spec.start_from = find(from["start_from"], "/train/start_from");
  }
  spec.model_ranks = root["model_ranks"];
  spec.input_split = word(from["input_split"], input_splits);
  spec.link.latency_s = from["link"]["latency_s"];
  if (from["link"]["bytes_per_s"].is_number()) spec.link.bytes_per_s = from["link"]["bytes_per_s"];
  if (from["rebalance"].is_boolean()) spec.rebalance = from["rebalance"].get<bool>();
  spec.checkpoint.every = from["checkpoint"]["every_epochs"];
  spec.checkpoint.keep_last = from["checkpoint"]["keep_last"];
  spec.seed = root["seed"].get<std::uint64_t>();
  spec.fingerprint = fingerprint_of(root);
  return spec;
}

}  // namespace spdnn::config
