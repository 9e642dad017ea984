// Checks a configuration against the table of keys and fills in the defaults.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "keys.hpp"

namespace spdnn::config {

/// Something wrong at one place of a configuration.
struct Problem {
  std::string pointer;
  std::string message;
};

/// Problems in the order of the document, none where it is well formed. Integers written as 1e3 or
/// 2.0 become integers, and keys that are missing get their defaults.
[[nodiscard]] std::vector<Problem> check(Json& root);

/// Bytes of a size such as "8GB" or "512MiB"; nothing where it is not one or passes 2⁶³ − 1.
[[nodiscard]] std::optional<std::int64_t> parse_size(std::string_view text);

}  // namespace spdnn::config
