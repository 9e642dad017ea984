// From the checked JSON of a configuration that trains to its `TrainSpec`.
#pragma once

#include <functional>

#include "keys.hpp"
#include "spdnn/config.hpp"

namespace spdnn::config {

/// Finds a data file named at a JSON pointer, or throws.
using FindFile = std::function<std::filesystem::path(const Json& name, const std::string& pointer)>;
/// Throws an `InputError` that names the pointer.
using Fail = std::function<void(const std::string& pointer, const std::string& message)>;

/// `root` was accepted by `check` and has `train` and `model.layers`.
[[nodiscard]] TrainSpec train_spec(const Json& root, const FindFile& find, const Fail& fail);

}  // namespace spdnn::config
