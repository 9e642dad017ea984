// Grouping rows by their column lists.
#include "equal_lists.hpp"

#include <cstring>
#include <limits>
#include <string_view>

namespace spdnn {
namespace {

using Row = std::uint32_t;

std::string_view list_of(const CsrView& w, std::int64_t row) {
  const std::size_t size = size_of(w.index_type);
  const auto begin = static_cast<std::size_t>(w.row_begin(row));
  const auto end = static_cast<std::size_t>(w.row_begin(row + 1));
  return {static_cast<const char*>(w.col_indices) + begin * size, (end - begin) * size};
}

std::uint64_t word_at(const char* bytes) {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

std::uint64_t mix(std::uint64_t hash, std::uint64_t word) {
  hash = (hash ^ word) * 0xD6E8FEB86659FD93U;
  return (hash >> 32) | (hash << 32);
}

/// A hash by multiplication and rotation; lists that collide are compared. Of a long list it takes
/// four words, its ends among them, or all where `whole`.
std::uint64_t hash_of(std::string_view list, bool whole) {
  const char* data = list.data();
  std::size_t size = list.size();
  std::uint64_t hash = mix(size, 1);
  if (size >= 32 && !whole) {
    const std::size_t step = (size - 8) / 3;
    const std::uint64_t first = mix(hash, word_at(data) ^ (word_at(data + step) << 1));
    const std::uint64_t second =
        mix(size, word_at(data + 2 * step) ^ (word_at(data + size - 8) << 1));
    return mix(first, second);
  }
  for (; size >= 8; size -= 8, data += 8) hash = mix(hash, word_at(data));
  std::uint64_t rest = 0;
  if (size > 0) std::memcpy(&rest, data, size);
  return mix(hash, rest);
}

/// For each row, the first row with the same list: an open-addressed table of first rows. Nothing
/// where so many lists collide that hashes should have been of whole lists.
std::vector<Row> find_first(const CsrView& w, bool whole) {
  constexpr Row kNone = ~Row{0};
  std::size_t slots = 16;
  while (slots < static_cast<std::size_t>(w.rows) * 2) slots *= 2;
  std::vector<Row> table(slots, kNone);
  std::vector<Row> first(static_cast<std::size_t>(w.rows));
  std::int64_t patience = whole ? std::numeric_limits<std::int64_t>::max() : 4 * w.rows + 16;
  for (std::size_t row = 0; row < first.size(); ++row) {
    const std::string_view list = list_of(w, static_cast<std::int64_t>(row));
    const std::uint64_t hash = hash_of(list, whole);
    std::size_t slot = (hash ^ (hash >> 29)) & (slots - 1);
    while (table[slot] != kNone && list_of(w, table[slot]) != list) {
      slot = (slot + 1) & (slots - 1);
      if (--patience == 0) return {};
    }
    if (table[slot] == kNone) table[slot] = static_cast<Row>(row);
    first[row] = table[slot];
  }
  return first;
}

std::vector<Row> first_with_same_list(const CsrView& w) {
  std::vector<Row> first = find_first(w, false);
  if (first.empty()) first = find_first(w, true);
  return first;
}

}  // namespace

RowsByList group_by_list(const CsrView& w) {
  const std::vector<Row> first = first_with_same_list(w);
  RowsByList groups;
  std::vector<std::size_t> position(first.size() + 1, 0);  // group sizes, then where they begin
  for (const Row f : first) ++position[std::size_t{f} + 1];
  for (std::size_t row = 0; row < first.size(); ++row) {
    if (position[row + 1] > 0) groups.begins.push_back(position[row]);
    position[row + 1] += position[row];
  }
  groups.begins.push_back(first.size());
  groups.rows.resize(first.size());
  for (std::size_t row = 0; row < first.size(); ++row) {
    groups.rows[position[first[row]]++] = static_cast<Row>(row);
  }
  return groups;
}

}  // namespace spdnn
