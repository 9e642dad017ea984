// The network as a run executes it: rewritten by the passes that the configuration names, or taken
// from an earlier run.
#pragma once

#include "sources.hpp"
#include "spdnn/compile.hpp"

namespace spdnn {

/// Bounds of all inputs, those that are not stored (0) included. Infinite where one is not finite.
struct InputRange {
  float lowest = 0.0F;
  float highest = 0.0F;
};
[[nodiscard]] InputRange range_of(const CsrView& images);

/// A network takes so much of its memory limit that its layers are to be read one at a time.
[[nodiscard]] bool memory_is_short(const RunConfig& config, const Model& model);

/// What the compiler is asked for a run: its passes; the range of its inputs; half of the memory
/// limit for rewritten layers, and where the network given takes more than that, its pages given
/// back; the threads of the run's devices; the time the configuration gives, or else what running
/// the network as given would take.
[[nodiscard]] CompileRequest compile_request(const RunConfig& config, const Sources& sources,
                                             const std::vector<DeviceSpec>& specs,
                                             const CostModel& cost);

/// Compiles the network of `sources`, or takes it from disk; keeps it there where that is asked
/// for, or nothing is said and it took long.
[[nodiscard]] CompiledModel rewrite(const RunConfig& config, const Sources& sources,
                                    const CompileRequest& request);

/// Edges of the network given for the images that each layer of the compiled one was computed for.
[[nodiscard]] double edges_uncompiled(const Model& given, const CompiledModel& compiled,
                                      const std::vector<std::int64_t>& images_per_layer);

}  // namespace spdnn
