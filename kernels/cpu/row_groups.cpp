// Grouping rows by their column lists.
#include "cpu/row_groups.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace spdnn {
namespace {

std::string_view list_of(const CsrView& w, std::int64_t row) {
  const std::size_t size = size_of(w.index_type);
  const auto begin = static_cast<std::size_t>(w.row_begin(row));
  const auto end = static_cast<std::size_t>(w.row_begin(row + 1));
  return {static_cast<const char*>(w.col_indices) + begin * size, (end - begin) * size};
}

/// A hash of eight bytes at a time, by multiplication and rotation; lists that collide are
/// compared.
std::uint64_t hash_of(std::string_view list) {
  std::uint64_t hash = list.size() * 0x9E3779B97F4A7C15U;
  const auto mix = [&](std::uint64_t word) {
    hash = (hash ^ word) * 0xD6E8FEB86659FD93U;
    hash = (hash >> 32) | (hash << 32);
  };
  for (; list.size() >= 8; list.remove_prefix(8)) {
    std::uint64_t word = 0;
    std::memcpy(&word, list.data(), 8);
    mix(word);
  }
  std::uint64_t rest = 0;
  if (!list.empty()) std::memcpy(&rest, list.data(), list.size());
  mix(rest);
  return hash ^ (hash >> 29);
}

/// For each row, the first row with the same list: an open-addressed table of first rows.
std::vector<std::int64_t> first_with_same_list(const CsrView& w) {
  std::size_t slots = 16;
  while (slots < static_cast<std::size_t>(w.rows) * 2) slots *= 2;
  std::vector<std::int64_t> table(slots, -1);
  std::vector<std::int64_t> first(static_cast<std::size_t>(w.rows));
  for (std::int64_t row = 0; row < w.rows; ++row) {
    const std::string_view list = list_of(w, row);
    std::size_t slot = hash_of(list) & (slots - 1);
    while (table[slot] >= 0 && list_of(w, table[slot]) != list) slot = (slot + 1) & (slots - 1);
    if (table[slot] < 0) table[slot] = row;
    first[row] = table[slot];
  }
  return first;
}

/// Lists rows group by group, in order of each group's first row; returns where groups begin.
std::vector<std::int64_t> order_rows(const std::vector<std::int64_t>& first,
                                     std::vector<std::int64_t>& rows) {
  std::vector<std::int64_t> position(first.size() + 1, 0);  // group sizes, then where they begin
  for (const std::int64_t f : first) ++position[f + 1];
  std::vector<std::int64_t> begins;
  for (std::size_t row = 0; row < first.size(); ++row) {
    if (position[row + 1] > 0) begins.push_back(position[row]);
    position[row + 1] += position[row];
  }
  rows.resize(first.size());
  for (std::size_t row = 0; row < first.size(); ++row) {
    rows[position[first[row]]++] = static_cast<std::int64_t>(row);
  }
  begins.push_back(static_cast<std::int64_t>(first.size()));
  return begins;
}

void add_values(const CsrView& w, const RowBlock& block, RowGroups& groups) {
  const auto* values = static_cast<const float*>(w.values);
  for (std::int64_t k = 0; k < block.entries; ++k) {
    for (std::int32_t r = 0; r < block.rows; ++r) {
      groups.values.push_back(values[w.row_begin(groups.rows[block.first + r]) + k]);
    }
  }
}

void count_work(const CsrView& w, RowGroups& groups) {
  for (RowBlock& block : groups.blocks) {
    block.work = groups.work;
    for (std::int64_t row = block.first; row < block.first + block.rows; ++row) {
      groups.work += 1 + w.row_begin(groups.rows[row] + 1) - w.row_begin(groups.rows[row]);
    }
  }
}

}  // namespace

RowGroups find_row_groups(const CsrView& w) {
  RowGroups groups;
  std::vector<std::int64_t> rows;
  const std::vector<std::int64_t> begins = order_rows(first_with_same_list(w), rows);
  // Groups of two rows and more first, in blocks of 8, 4 and 2; what is left over reads its own
  // lists.
  std::vector<std::int64_t> singles;
  for (std::size_t g = 0; g + 1 < begins.size(); ++g) {
    std::int64_t next = begins[g];
    for (std::int32_t size = RowGroups::kMostRows; size >= 2; size /= 2) {
      for (; begins[g + 1] - next >= size; next += size) {
        RowBlock block;
        block.first = std::ssize(groups.rows);
        block.rows = size;
        block.list = w.row_begin(rows[next]);
        block.entries = w.row_begin(rows[next] + 1) - block.list;
        block.values = std::ssize(groups.values);
        groups.rows.insert(groups.rows.end(), rows.begin() + next, rows.begin() + next + size);
        if (!w.shared_value) add_values(w, block, groups);
        groups.blocks.push_back(block);
      }
    }
    for (; next < begins[g + 1]; ++next) singles.push_back(rows[next]);
  }
  // Rows side by side in a block should be about equally long: they are summed together up to the
  // shortest of them.
  std::stable_sort(singles.begin(), singles.end(), [&](std::int64_t a, std::int64_t b) {
    return w.row_begin(a + 1) - w.row_begin(a) > w.row_begin(b + 1) - w.row_begin(b);
  });
  constexpr std::int64_t kOwnRows = 4;
  for (std::int64_t next = 0; next < std::ssize(singles);) {
    const std::int64_t size = std::ssize(singles) - next >= kOwnRows ? kOwnRows : 1;
    RowBlock block;
    block.first = std::ssize(groups.rows);
    block.rows = static_cast<std::int32_t>(size);
    block.own_lists = true;
    groups.rows.insert(groups.rows.end(), singles.begin() + next, singles.begin() + next + size);
    groups.blocks.push_back(block);
    next += size;
  }
  count_work(w, groups);
  return groups;
}

Range blocks_in(const RowGroups& groups, std::int64_t begin, std::int64_t end, std::int64_t of) {
  const auto first_from = [&](std::int64_t piece) {
    const std::int64_t work = groups.work / of * piece + groups.work % of * piece / of;
    const auto found = std::partition_point(groups.blocks.begin(), groups.blocks.end(),
                                            [&](const RowBlock& b) { return b.work < work; });
    return static_cast<std::int64_t>(found - groups.blocks.begin());
  };
  return {first_from(begin), end == of ? std::ssize(groups.blocks) : first_from(end)};
}

}  // namespace spdnn
