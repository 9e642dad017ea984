// A strict JSON parser on top of nlohmann's: duplicate keys are errors and lines are kept.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "keys.hpp"

namespace spdnn::config {

// Moving the library's JSON value throws nothing, though the check can't see it.
struct Parsed {  // NOLINT(bugprone-exception-escape)
  Json value;
  std::map<std::string, std::int64_t> lines;  ///< by JSON pointer of each key, from 1
  std::string problem;                        ///< why the text was refused; empty when it was not
  std::int64_t line = 0, column = 0;          ///< of the problem, from 1
};

/// Parses one JSON value that is the whole of `text`.
[[nodiscard]] Parsed parse(std::string_view text);

}  // namespace spdnn::config
