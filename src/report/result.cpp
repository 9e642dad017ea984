// A run's result as JSON; docs/result.md says what each key means.
#include <cmath>
#include <set>

#include "format.hpp"
#include "spdnn/report.hpp"

namespace spdnn {
namespace {

using report::finite;
using report::Json;

Json devices_of(const RunResult& result) {
  Json devices = Json::array();
  for (const DeviceResult& d : result.devices) {
    devices.push_back({{"name", d.name},
                       {"kind", d.kind},
                       {"host", d.host},
                       {"logical", d.logical},
                       {"busy_s", finite(d.busy_s)},
                       {"idle_s", finite(d.idle_s)},
                       {"images", d.images},
                       {"images_taken_over", d.images_taken_over},
                       {"helped_segments", d.helped_segments},
                       {"replayed_segments", d.replayed_segments}});
  }
  return devices;
}

/// The kernels each rank ran, without repeats.
Json kernels_of(const Plan& plan) {
  std::vector<std::set<std::string>> ranks;
  for (const Segment& segment : plan.segments) {
    if (ranks.size() < segment.kernels.size()) ranks.resize(segment.kernels.size());
    for (std::size_t r = 0; r < segment.kernels.size(); ++r) {
      if (r < segment.chains.size() && !segment.chains[r].empty()) {
        ranks[r].insert(segment.chains[r]);
      } else {
        ranks[r].insert(segment.kernels[r].begin(), segment.kernels[r].end());
      }
    }
  }
  return Json(ranks);
}

/// The ranks of each group that owns the rows together, those with the first rows first.
Json groups_of(const Plan& plan) {
  std::vector<std::vector<std::size_t>> groups(plan.grid.images.size(),
                                               std::vector<std::size_t>(plan.grid.rows.size()));
  for (std::size_t rank = 0; rank < plan.grid.places.size(); ++rank) {
    const std::int64_t place = plan.grid.places[rank];
    const auto rows = std::ssize(plan.grid.rows);
    if (place >= 0) groups[place / rows][place % rows] = rank;
  }
  return Json(groups);
}

Json plan_of(const Plan& plan) {
  Json images = Json::array();
  for (const Range& range : plan.images) images.push_back({range.begin, range.end});
  Json messages = nullptr;
  if (plan.messages) {
    messages = {{"latency_s", finite(plan.messages->latency_s)},
                {"seconds_per_row", finite(plan.messages->seconds_per_row)},
                {"seconds_per_byte", finite(plan.messages->seconds_per_byte)}};
  }
  return {{"strategy", std::string(to_string(plan.strategy))},
          {"images", std::move(images)},
          {"groups", groups_of(plan)},
          {"batch", plan.batch},
          {"stream_weights", plan.stream_weights},
          {"segments", plan.segments.size()},
          {"kernels", kernels_of(plan)},
          {"messages", std::move(messages)},
          {"notes", plan.notes}};
}

Json size_json(const NetworkSize& size) {
  return {{"rows", size.rows}, {"nonzeros", size.nonzeros}, {"bytes", size.bytes}};
}

Json compile_of(const CompileReport& compile) {
  Json passes = Json::array();
  for (const PassReport& pass : compile.passes) {
    passes.push_back({{"name", pass.name},
                      {"layers", pass.layers},
                      {"before", size_json(pass.before)},
                      {"after", size_json(pass.after)},
                      {"seconds", finite(pass.seconds)},
                      {"stopped", pass.stopped}});
  }
  return {{"exact", compile.exact},
          {"from_cache", compile.from_cache},
          {"threads", compile.threads},
          {"before", size_json(compile.before)},
          {"after", size_json(compile.after)},
          {"passes", std::move(passes)}};
}

Json sample_of(const SampleCheck& sample) {
  const bool checked = sample.images > 0;
  return {{"images", sample.images},
          {"match", checked ? Json(sample.match) : Json(nullptr)},
          {"max_abs_difference", checked ? finite(sample.max_abs_difference) : Json(nullptr)}};
}

Json measure_of(const Measure& measure) {
  Json json{{"images", measure.images},
            {"correct", measure.correct},
            {"accuracy", measure.accuracy()},
            {"loss", finite(measure.loss)}};
  return json;
}

Json epoch_of(const EpochReport& epoch) {
  return {{"epoch", epoch.epoch},
          {"steps", epoch.steps},
          {"rate", epoch.rate},
          {"train", measure_of(epoch.train)},
          {"validation", epoch.validation ? measure_of(*epoch.validation) : Json(nullptr)},
          {"rewired", epoch.rewired},
          {"seconds", finite(epoch.seconds)}};
}

/// [label][prediction], or null where nothing was measured.
Json confusion_of(const Measure& measure) {
  if (measure.confusion.empty()) return nullptr;
  const auto classes =
      static_cast<std::ptrdiff_t>(std::lround(std::sqrt(measure.confusion.size())));
  Json rows = Json::array();
  for (auto row = measure.confusion.begin(); row != measure.confusion.end(); row += classes) {
    rows.push_back(std::vector<std::int64_t>(row, row + classes));
  }
  return rows;
}

/// Shares of a batch: the first ones, and those after each change.
Json shares_of(const TrainResult& train) {
  Json all = Json::array();
  for (const ShareReport& shares : train.shares) {
    all.push_back({{"step", shares.step},
                   {"images", shares.images},
                   {"predicted_s", finite(shares.predicted_s)}});
    if (!shares.rows.empty()) all.back()["rows"] = shares.rows;
  }
  return all;
}

/// Bytes by kind, and their sum.
Json memory_of(const TrainResult& train, std::int64_t MemoryItem::*bytes) {
  Json memory = Json::object();
  std::int64_t sum = 0;
  for (const MemoryItem& item : train.memory) {
    memory[item.name] = item.*bytes;
    sum += item.*bytes;
  }
  memory["sum"] = sum;
  return memory;
}

Json train_of(const TrainResult& train) {
  Json layers = Json::array();
  for (const LayerReport& layer : train.layers) {
    layers.push_back(
        {{"inputs", layer.inputs}, {"outputs", layer.outputs}, {"connections", layer.connections}});
  }
  return {{"seconds", finite(train.train_s)},
          {"resumed_epochs", train.resumed_epochs},
          {"stopped_early", train.stopped_early},
          {"restored_epoch", train.restored_epoch > 0 ? Json(train.restored_epoch) : Json(nullptr)},
          {"last_epoch", train.epochs.empty() ? Json(nullptr) : epoch_of(train.epochs.back())},
          {"test", train.test.images > 0 ? measure_of(train.test) : Json(nullptr)},
          {"layers", std::move(layers)},
          {"shares", shares_of(train)},
          {"memory_bytes", memory_of(train, &MemoryItem::bytes)},
          {"device_memory_bytes", memory_of(train, &MemoryItem::device_bytes)}};
}

Json number_or_null(const std::optional<std::int64_t>& number) {
  return number ? Json(*number) : Json(nullptr);
}

/// What crossed between ranks that own rows.
Json rows_of(const RowTraffic& rows) {
  Json layers = Json::array();
  for (const RowTraffic::Layer& layer : rows.layers) {
    layers.push_back({{"split", layer.split == LayerSplit::inputs ? "inputs" : "outputs"},
                      {"forward_bytes", layer.forward},
                      {"predicted_forward_bytes", number_or_null(layer.predicted_forward)},
                      {"backward_bytes", layer.backward},
                      {"predicted_backward_bytes", number_or_null(layer.predicted_backward)}});
  }
  return {{"partition", rows.partition},
          {"parts", rows.parts},
          {"imbalance", rows.imbalance ? finite(*rows.imbalance) : Json(nullptr)},
          {"layers", std::move(layers)}};
}

}  // namespace

std::string result_json(const RunResult& result, const std::vector<std::string>& command) {
  const Version built = version();
  const RunResult::Seconds& s = result.seconds;
  Json categories{{"count", result.categories.size()}, {"match", nullptr}};
  if (result.categories_match) categories["match"] = *result.categories_match;
  const Json json{
      {"status", result.status},
      {"job", result.job},
      {"command", command},
      {"version", built.version},
      {"git", {{"commit", built.commit}, {"dirty", built.dirty}}},
      {"devices", devices_of(result)},
      {"plan", plan_of(result.plan)},
      {"compile", compile_of(result.compile)},
      {"images", result.images},
      {"unique_images", result.unique_images},
      {"equal_images", result.equal_images},
      {"fixed_images", result.fixed_images},
      {"layers", result.layers},
      {"neurons", result.neurons},
      {"model", {{"origin", result.model_origin}}},
      {"input", {{"origin", result.input_origin}}},
      {"seconds",
       {{"load", finite(s.load)},
        {"compile", finite(s.compile)},
        {"profile", finite(s.profile)},
        {"partition", finite(s.partition)},
        {"infer", finite(s.infer)},
        {"infer_resident", finite(s.infer_resident)},
        {"verify", finite(s.verify)}}},
      {"edges",
       {{"nominal", finite(result.edges.nominal)},
        {"executed", finite(result.edges.executed)},
        {"executed_uncompiled", finite(result.edges.executed_uncompiled)}}},
      {"edges_per_s",
       {{"nominal", finite(report::rate(result.edges.nominal, s.infer))},
        {"executed", finite(report::rate(result.edges.executed, s.infer))}}},
      {"categories", std::move(categories)},
      {"sample", sample_of(result.sample)},
      {"accuracy", result.labelled ? Json(result.labelled->accuracy()) : Json(nullptr)},
      {"confusion", result.labelled ? confusion_of(*result.labelled) : Json(nullptr)},
      {"train", result.train ? train_of(*result.train) : Json(nullptr)},
      {"rows", result.rows ? rows_of(*result.rows) : Json(nullptr)},
      {"peak_bytes", {{"host", result.peak_host_bytes}, {"device", result.peak_device_bytes}}},
      {"notes", result.notes},
      {"failures", result.failures}};
  return report::text_of(json);
}

}  // namespace spdnn
