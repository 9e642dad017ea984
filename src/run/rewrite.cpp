// What the compiler is told of a run, and whether it is asked at all: a network that was compiled
// before is read.
#include "rewrite.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "compiled_cache.hpp"
#include "devices.hpp"

namespace spdnn {
namespace {

/// Bytes that weights may take on the host, as the planner divides them.
std::int64_t weight_limit(const RunConfig& config) {
  const std::int64_t limit =
      config.memory_limit ? *config.memory_limit : list_devices().front().memory_bytes * 8 / 10;
  return limit / 2;
}

}  // namespace

InputRange range_of(const CsrView& images) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  InputRange range;
  const std::int64_t count = images.stored_values();
  for (std::int64_t k = 0; k < count; ++k) {
    const auto value = static_cast<float>(images.value(k));
    if (!std::isfinite(value)) return {-infinity, infinity};
    range.lowest = std::min(range.lowest, value);
    range.highest = std::max(range.highest, value);
  }
  return range;
}

bool memory_is_short(const RunConfig& config, const Model& model) {
  return model.weight_bytes() > weight_limit(config);
}

CompileRequest compile_request(const RunConfig& config, const Sources& sources,
                               const std::vector<DeviceSpec>& specs, const CostModel& cost) {
  constexpr double kLeastSeconds = 1.0;
  CompileRequest request;
  request.passes = passes_for(config.compile);
  const InputRange range = range_of(sources.images.view());
  request.lowest_input = range.lowest;
  request.highest_input = range.highest;
  request.memory_limit = weight_limit(config);
  request.release_pages = memory_is_short(config, sources.model);
  request.cost = cost;
  request.most_seconds = config.compile_seconds.value_or(
      std::max(static_cast<double>(sources.images.rows()) * seconds_per_image(cost, sources.model),
               kLeastSeconds));
  request.threads = 0;
  for (const DeviceSpec& spec : specs) {
    if (spec.kind == DeviceKind::cpu) request.threads += spec.threads;
  }
  if (request.threads == 0) request.threads = static_cast<int>(usable_cores().size());
  return request;
}

CompiledModel rewrite(const RunConfig& config, const Sources& sources,
                      const CompileRequest& request) {
  /// What compiles faster is not worth a file.
  constexpr double kLong = 0.02;
  const bool may_keep = config.compile_cache.value_or(true) && !request.passes.empty();
  const std::filesystem::path folder = may_keep ? cache_folder() : std::filesystem::path();
  const std::optional<std::string> key =
      folder.empty() ? std::nullopt : compiled_key(sources.model, request);
  std::vector<std::string> notes;
  if (key) {
    if (auto kept = read_compiled(folder, *key, sources.model, notes)) return *std::move(kept);
  }
  CompiledModel compiled = compile(sources.model, request);
  const bool whole = std::none_of(compiled.report.passes.begin(), compiled.report.passes.end(),
                                  [](const PassReport& pass) { return pass.stopped; });
  if (key && whole && (config.compile_cache || compiled.report.seconds > kLong)) {
    write_compiled(folder, *key, sources.model, compiled);
  }
  compiled.report.notes.insert(compiled.report.notes.end(), notes.begin(), notes.end());
  return compiled;
}

double edges_uncompiled(const Model& given, const CompiledModel& compiled,
                        const std::vector<std::int64_t>& images_per_layer) {
  double edges = 0.0;
  for (std::size_t l = 0; l < images_per_layer.size(); ++l) {
    for (std::int64_t g = compiled.layers[l].begin; g < compiled.layers[l].end; ++g) {
      edges += static_cast<double>(images_per_layer[l]) *
               static_cast<double>(layer_edges(given.layers[g]));
    }
  }
  return edges;
}

}  // namespace spdnn
