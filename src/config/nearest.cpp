// Which word was probably meant by one that is not known.
#include <algorithm>
#include <cctype>
#include <cstddef>

#include "spdnn/config.hpp"

namespace spdnn {
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

}  // namespace spdnn
