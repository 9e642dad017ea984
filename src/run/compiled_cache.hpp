// Compiled networks on disk, each under a name made of the content it was compiled from.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "spdnn/compile.hpp"

namespace spdnn {

/// What a compiled network depends on: the content of the one given, passes, range of inputs and
/// the compiler's version. Nothing where a layer's content is known only by reading it, which would
/// take about as long as compiling.
[[nodiscard]] std::optional<std::string> compiled_key(const Model& model,
                                                      const CompileRequest& request);

/// The network compiled from `model` under `key`; nothing where `folder` has none. One that can't
/// be trusted counts as none, and `notes` says why.
[[nodiscard]] std::optional<CompiledModel> read_compiled(const std::filesystem::path& folder,
                                                         const std::string& key, const Model& model,
                                                         std::vector<std::string>& notes);

/// Keeps a network compiled from `model`, whose unchanged layers are not stored. The oldest in the
/// folder go where all together take more than `most_bytes`. A folder that can't be written only
/// costs time next time.
void write_compiled(const std::filesystem::path& folder, const std::string& key, const Model& model,
                    const CompiledModel& compiled, std::int64_t most_bytes = std::int64_t{4} << 30);

}  // namespace spdnn
