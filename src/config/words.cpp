// Sizes with units, and near misses of words.
#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <string>
#include <utility>

#include "check.hpp"

namespace spdnn::config {
namespace {

/// Edits that make `b` of `a`: inserting, deleting, replacing, or swapping neighbours, in any case.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  std::vector<std::size_t> before(b.size() + 1);  // of a's first i - 2 characters
  std::vector<std::size_t> above(b.size() + 1);   // i - 1
  std::vector<std::size_t> row(b.size() + 1);     // i
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before.swap(above);
    above.swap(row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const bool same = lower(a[i - 1]) == lower(b[j - 1]);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
          lower(a[i - 2]) == lower(b[j - 1])) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
  }
  return row[b.size()];
}

}  // namespace

std::string_view nearest(std::string_view word, const std::vector<std::string_view>& choices) {
  // A third of the letters may be wrong, and one of a short word.
  const std::size_t most = std::max<std::size_t>(1, std::min<std::size_t>(word.size(), 64) / 3);
  std::string_view best;
  std::size_t least = most + 1;
  for (const std::string_view choice : choices) {
    if (word.size() > choice.size() + most) continue;
    const std::size_t distance = edit_distance(word, choice);
    if (distance < least && distance < choice.size()) {
      least = distance;
      best = choice;
    }
  }
  return best;
}

std::optional<std::int64_t> parse_size(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, double>, 10> units{{{"B", 1.0},
                                                                       {"kB", 1e3},
                                                                       {"KB", 1e3},
                                                                       {"MB", 1e6},
                                                                       {"GB", 1e9},
                                                                       {"TB", 1e12},
                                                                       {"KiB", 1024.0},
                                                                       {"MiB", 1048576.0},
                                                                       {"GiB", 1073741824.0},
                                                                       {"TiB", 1099511627776.0}}};
  double number = 0.0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  const auto digits = static_cast<std::size_t>(end - text.data());
  if (error != std::errc() || std::isdigit(static_cast<unsigned char>(text.front())) == 0 ||
      text[digits - 1] == '.') {
    return std::nullopt;
  }
  std::string_view unit = text.substr(digits);
  if (unit.starts_with(' ')) unit.remove_prefix(1);
  for (const auto& [name, factor] : units) {
    if (name != unit) continue;
    const double bytes = std::floor(number * factor);
    if (bytes < 1.0 || bytes >= 9223372036854775808.0) return std::nullopt;
    return static_cast<std::int64_t>(bytes);
  }
  return std::nullopt;
}

}  // namespace spdnn::config
