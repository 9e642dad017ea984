// Identical images are found by a hash of their entries and then compared in full.
#include "distinct.hpp"

#include <algorithm>
#include <numeric>
#include <string_view>
#include <unordered_map>

namespace spdnn {
namespace {

/// Bytes of one image's entries, for comparing images exactly.
std::string_view entry_bytes(const CsrView& images, std::int64_t image) {
  const CsrView row = images.slice_rows({image, image + 1});
  return {static_cast<const char*>(row.col_indices),
          static_cast<std::size_t>(row.nnz) * size_of(row.index_type)};
}
std::string_view value_bytes(const CsrView& images, std::int64_t image) {
  if (images.shared_value) return {};
  const CsrView row = images.slice_rows({image, image + 1});
  return {static_cast<const char*>(row.values),
          static_cast<std::size_t>(row.nnz) * size_of(row.value_type)};
}

}  // namespace

Distinct find_distinct(const CsrView& images) {
  Distinct distinct;
  std::unordered_multimap<std::size_t, std::int64_t> seen;
  for (std::int64_t i = 0; i < images.rows; ++i) {
    const std::string_view entries = entry_bytes(images, i);
    const std::string_view values = value_bytes(images, i);
    const std::size_t hash = std::hash<std::string_view>{}(entries);
    const auto [first, last] = seen.equal_range(hash);
    const auto same = std::find_if(first, last, [&](const auto& entry) {
      const std::int64_t other = distinct.ids[entry.second];
      return entries == entry_bytes(images, other) && values == value_bytes(images, other);
    });
    if (same != last) {
      distinct.of.push_back(same->second);
    } else {
      seen.emplace(hash, std::ssize(distinct.ids));
      distinct.of.push_back(std::ssize(distinct.ids));
      distinct.ids.push_back(i);
    }
  }
  return distinct;
}

Distinct all_distinct(std::int64_t images) {
  Distinct distinct;
  distinct.ids.resize(static_cast<std::size_t>(images));
  std::iota(distinct.ids.begin(), distinct.ids.end(), 0);
  distinct.of = distinct.ids;
  return distinct;
}

}  // namespace spdnn
