// From the checked JSON of a configuration that trains to its `TrainSpec`.
#pragma once

#include <functional>

#include "device_config.hpp"
#include "keys.hpp"
#include "spdnn/config.hpp"

namespace spdnn::config {

/// Finds a data file named at a JSON pointer, or throws.
using FindFile = std::function<std::filesystem::path(const Json& name, const std::string& pointer)>;

/// `root` was accepted by `check` and has `train` and `model.layers`.
[[nodiscard]] TrainSpec train_spec(const Json& root, const FindFile& find, const Fail& fail);

}  // namespace spdnn::config
