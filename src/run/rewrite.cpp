// What the compiler is told of a run: the range of its inputs, and how much memory there is.
#include "rewrite.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

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

CompiledModel rewrite(const RunConfig& config, const Sources& sources) {
  CompileRequest request;
  request.passes = passes_for(config.compile);
  if (!request.passes.empty()) {
    const InputRange range = range_of(sources.images.view());
    request.lowest_input = range.lowest;
    request.highest_input = range.highest;
    request.memory_limit = weight_limit(config);
    request.release_pages = memory_is_short(config, sources.model);
  }
  return compile(sources.model, request);
}

}  // namespace spdnn
