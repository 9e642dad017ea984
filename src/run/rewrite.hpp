// The network as a run executes it: rewritten by the passes that the configuration names.
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

/// Compiles the network of `sources` for its images. Rewritten layers may take half of the memory
/// limit; where the network given takes more than that, its pages are given back layer by layer.
[[nodiscard]] CompiledModel rewrite(const RunConfig& config, const Sources& sources);

}  // namespace spdnn
