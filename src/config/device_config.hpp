// From the checked JSON of the key `devices` to what each rank runs on.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "keys.hpp"
#include "spdnn/device.hpp"

namespace spdnn::config {

/// Throws an `InputError` that names the pointer.
using Fail = std::function<void(const std::string& pointer, const std::string& message)>;

/// `root` was accepted by `check`; none where its devices are "auto".
[[nodiscard]] std::vector<DeviceSpec> device_specs(const Json& root, const Fail& fail);

}  // namespace spdnn::config
