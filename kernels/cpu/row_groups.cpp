// Grouping rows by their column lists, and laying the lists out in the order of their use.
#include "cpu/row_groups.hpp"

#include <algorithm>
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

Row length_of(const CsrView& w, std::int64_t row) {
  return static_cast<Row>(w.row_begin(row + 1) - w.row_begin(row));
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

constexpr Row kNone = ~Row{0};

/// For each row, the first row with the same list: an open-addressed table of first rows. Nothing
/// where so many lists collide that hashes should have been of whole lists.
std::vector<Row> find_first(const CsrView& w, bool whole) {
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

/// Lists rows group by group, in order of each group's first row; returns where groups begin.
std::vector<Row> order_rows(const std::vector<Row>& first, std::vector<Row>& rows) {
  std::vector<Row> position(first.size() + 1, 0);  // group sizes, then where they begin
  for (const Row f : first) ++position[f + 1];
  std::vector<Row> begins;
  for (std::size_t row = 0; row < first.size(); ++row) {
    if (position[row + 1] > 0) begins.push_back(position[row]);
    position[row + 1] += position[row];
  }
  rows.resize(first.size());
  for (std::size_t row = 0; row < first.size(); ++row) {
    rows[position[first[row]]++] = static_cast<Row>(row);
  }
  begins.push_back(static_cast<Row>(first.size()));
  return begins;
}

/// Sorts rows by length, the longest first, and otherwise leaves them in their order. Rows side by
/// side in a block should be about equally long.
void sort_by_length(const CsrView& w, std::vector<Row>& rows) {
  Row longest = 0;
  for (const Row row : rows) longest = std::max(longest, length_of(w, row));
  if (longest > 4 * rows.size() + 1024) {  // too few rows to count lengths
    std::stable_sort(rows.begin(), rows.end(),
                     [&](Row a, Row b) { return length_of(w, a) > length_of(w, b); });
    return;
  }
  std::vector<Row> begins(static_cast<std::size_t>(longest) + 2, 0);
  for (const Row row : rows) ++begins[longest - length_of(w, row) + 1];
  for (std::size_t i = 1; i < begins.size(); ++i) begins[i] += begins[i - 1];
  std::vector<Row> sorted(rows.size());
  for (const Row row : rows) sorted[begins[longest - length_of(w, row)]++] = row;
  rows.swap(sorted);
}

/// Builds blocks one after another. `Index` is the type of the matrix's columns.
template <class Index>
class Builder {
 public:
  Builder(const CsrView& w, RowGroups& groups, std::vector<Index>& columns)
      : w_(w),
        from_(static_cast<const Index*>(w.col_indices)),
        values_(w.shared_value ? nullptr : static_cast<const float*>(w.values)),
        groups_(groups),
        columns_(columns) {
    groups.rows.reserve(static_cast<std::size_t>(w.rows));
  }

  /// Makes room for `columns` columns and `values` values in all.
  void reserve(std::size_t columns, std::size_t values) {
    columns_.reserve(columns);
    if (values_ != nullptr) groups_.values.reserve(values);
  }

  /// Blocks of 8, 4 and 2 of an even number of rows with one list.
  void add_shared(const Row* rows, std::size_t count) {
    const std::int64_t list = w_.row_begin(rows[0]);
    const Row entries = length_of(w_, rows[0]);
    const std::int64_t columns = std::ssize(columns_);
    columns_.insert(columns_.end(), from_ + list, from_ + list + entries);
    longest_ = std::max(longest_, entries);
    std::size_t next = 0;
    for (std::size_t size = RowGroups::kMostRows; size >= 2; size /= 2) {
      for (; count - next >= size; next += size) {
        add_block(rows + next, size, entries, false).columns = columns;
        if (values_ == nullptr) continue;
        float* to = grow(groups_.values, entries * size);
        for (std::size_t r = 0; r < size; ++r) {
          const float* values = values_ + w_.row_begin(rows[next + r]);
          for (Row k = 0; k < entries; ++k) to[k * size + r] = values[k];
        }
      }
    }
  }

  /// A block of rows with lists of their own, the shortest row last.
  void add_own(const Row* rows, std::size_t count) {
    const Row common = length_of(w_, rows[count - 1]);
    add_block(rows, count, common, true);
    std::size_t total = 0;
    for (std::size_t r = 0; r < count; ++r) total += length_of(w_, rows[r]);
    interleave(rows, count, common, from_, grow(columns_, total));
    if (values_ != nullptr) {
      interleave(rows, count, common, values_, grow(groups_.values, total));
    }
  }

  /// Lets blocks of shared lists read one list further than their own.
  void finish() { columns_.insert(columns_.end(), longest_, Index{0}); }

 private:
  RowBlock& add_block(const Row* rows, std::size_t count, Row entries, bool own_lists) {
    RowBlock block;
    block.columns = std::ssize(columns_);
    block.values = std::ssize(groups_.values);
    block.first = static_cast<Row>(groups_.rows.size());
    block.entries = entries;
    block.rows = static_cast<std::uint16_t>(count);
    block.own_lists = own_lists;
    for (std::size_t r = 0; r < count; ++r) {
      groups_.rows.push_back(rows[r]);
      if (own_lists) groups_.lengths.push_back(length_of(w_, rows[r]));
    }
    return groups_.blocks.emplace_back(block);
  }

  template <class T>
  static T* grow(std::vector<T>& array, std::size_t count) {
    array.resize(array.size() + count);
    return array.data() + array.size() - count;
  }

  /// Writes entries of `rows` as `[entry][row]` up to the `common` ones, then the rest of each row.
  template <class T>
  void interleave(const Row* rows, std::size_t count, Row common, const T* from, T* to) const {
    T* rest = to + std::size_t{common} * count;
    for (std::size_t r = 0; r < count; ++r) {
      const T* row = from + w_.row_begin(rows[r]);
      for (Row k = 0; k < common; ++k) to[k * count + r] = row[k];
      rest = std::copy(row + common, row + length_of(w_, rows[r]), rest);
    }
  }

  const CsrView& w_;
  const Index* from_;
  const float* values_;
  RowGroups& groups_;
  std::vector<Index>& columns_;
  Row longest_ = 0;  ///< shared list
};

template <class Index>
void build(const CsrView& w, RowGroups& groups, std::vector<Index>& columns) {
  std::vector<Row> rows;
  const std::vector<Row> begins = order_rows(first_with_same_list(w), rows);
  std::vector<Row> own;  // what is left over where groups are split into blocks
  std::size_t columns_size = 0;
  std::size_t values_size = 0;
  Row longest = 0;
  for (std::size_t g = 0; g + 1 < begins.size(); ++g) {
    const std::size_t count = begins[g + 1] - begins[g];
    const std::size_t length = length_of(w, rows[begins[g]]);
    if (count > 1) longest = std::max(longest, static_cast<Row>(length));
    columns_size += length * ((count > 1 ? 1 : 0) + count % 2);
    values_size += length * count;
    if (count % 2 == 1) own.push_back(rows[begins[g + 1] - 1]);
  }
  Builder<Index> builder(w, groups, columns);
  builder.reserve(columns_size + longest, values_size);
  sort_by_length(w, own);
  for (std::size_t next = 0; next < own.size();) {
    const std::size_t size = own.size() - next >= RowGroups::kOwnRows ? RowGroups::kOwnRows : 1;
    builder.add_own(own.data() + next, size);
    next += size;
  }
  for (std::size_t g = 0; g + 1 < begins.size(); ++g) {
    const std::size_t even = (begins[g + 1] - begins[g]) / 2 * 2;
    if (even > 0) builder.add_shared(rows.data() + begins[g], even);
  }
  builder.finish();
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
  if (w.index_type == DType::u16) {
    build(w, groups, groups.columns16);
  } else {
    build(w, groups, groups.columns32);
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
