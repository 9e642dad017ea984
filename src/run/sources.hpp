// From a configuration to the network, its input and the truth, all in host memory.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "spdnn/run.hpp"

namespace spdnn {

struct Sources {
  Model model;
  Csr images;  ///< [images × inputs], already repeated
  std::string input_origin;
  std::vector<std::int32_t> labels;  ///< of all images, each below the network's outputs; or none
  std::optional<std::vector<std::int64_t>> truth;  ///< category ids, 0-based, ascending
  std::filesystem::path truth_file;
  std::vector<std::string> notes;
};

/// Reads or generates everything a run needs and checks that it fits together. Throws `InputError`.
[[nodiscard]] Sources load_sources(const RunConfig& config);

}  // namespace spdnn
