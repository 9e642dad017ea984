// Numbers as people read them, tables, and JSON numbers that are always finite.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "spdnn/run.hpp"

namespace spdnn::report {

using Json = nlohmann::ordered_json;

/// A JSON number, or null where `value` is not finite.
[[nodiscard]] Json finite(double value);

/// `numerator / denominator`, 0 where nothing was measured.
[[nodiscard]] double rate(double numerator, double denominator);

/// "1.23 s", "45.6 ms", "2 min 5 s", "3 h 4 min".
[[nodiscard]] std::string seconds(double value);
/// "1.31e+11" as "131 G"; with the unit appended: "131 Gedges/s".
[[nodiscard]] std::string scaled(double value, std::string_view unit);
/// "1.5 GB", decimal.
[[nodiscard]] std::string bytes(std::int64_t value);
/// "60,000".
[[nodiscard]] std::string count(std::int64_t value);

/// Characters that `text` takes on a terminal: UTF-8 code points.
[[nodiscard]] std::size_t width(std::string_view text);

/// Rows of text in columns, two blanks apart; one `right` for each column aligns it to the right. A
/// row with fewer cells ends with one that may run on past its column.
[[nodiscard]] std::string table(const std::vector<std::vector<std::string>>& rows,
                                const std::vector<bool>& right, std::string_view indent);

/// Devices by rank, as tables name them: with their hosts where ranks are on several.
[[nodiscard]] std::vector<std::string> labels_of(const std::vector<RankDevice>& devices);

/// JSON as the project prints it: indented, ending with a newline, always valid UTF-8.
[[nodiscard]] std::string text_of(const Json& json);

}  // namespace spdnn::report
