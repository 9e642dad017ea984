// Grouping rows by their column lists, and laying the lists out in the order of their use.
#include "cpu/row_groups.hpp"

#include <algorithm>

#include "equal_lists.hpp"

namespace spdnn {
namespace {

using Row = std::uint32_t;

Row length_of(const CsrView& w, std::int64_t row) {
  return static_cast<Row>(w.row_begin(row + 1) - w.row_begin(row));
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
    const Row common = count == 1 ? 0 : length_of(w_, rows[count - 1]);
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
    block.work = groups_.work;
    for (std::size_t r = 0; r < count; ++r) {
      groups_.rows.push_back(rows[r]);
      const Row length = own_lists ? length_of(w_, rows[r]) : entries;
      if (own_lists) groups_.lengths.push_back(length);
      groups_.work += std::int64_t{1} + length;
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
  const RowsByList groups_of = group_by_list(w);
  const std::vector<Row>& rows = groups_of.rows;
  const std::vector<std::size_t>& begins = groups_of.begins;
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

}  // namespace

RowGroups find_row_groups(const CsrView& w) {
  RowGroups groups;
  if (w.index_type == DType::u16) {
    build(w, groups, groups.columns16);
  } else {
    build(w, groups, groups.columns32);
  }
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
