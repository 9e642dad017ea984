// Packing rows for their next owners.
#include "rows.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "shard.hpp"
#include "spdnn/halo.hpp"

namespace spdnn::train {
namespace {

/// Where the entries of a row are.
Range entries_of(const Pattern& pattern, std::int64_t row) {
  if (pattern.is_dense()) return {row * pattern.cols(), (row + 1) * pattern.cols()};
  return {pattern.row_offsets()[row], pattern.row_offsets()[row + 1]};
}

/// Elements of any type, appended to and taken from bytes.
class Writer {
 public:
  template <class T>
  void add(const T* values, std::int64_t count) {
    const auto* bytes = reinterpret_cast<const std::byte*>(values);
    bytes_.insert(bytes_.end(), bytes, bytes + static_cast<std::size_t>(count) * sizeof(T));
  }
  [[nodiscard]] std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

class Reader {
 public:
  explicit Reader(const std::vector<std::byte>& bytes) : bytes_(bytes) {}
  template <class T>
  void append(std::vector<T>& to, std::int64_t count) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    if (bytes_.size() - at_ < bytes) throw CommError("a row came without all of its entries");
    const auto old = to.size();
    to.resize(old + static_cast<std::size_t>(count));
    if (bytes > 0) std::memcpy(to.data() + old, bytes_.data() + at_, bytes);
    at_ += bytes;
  }

 private:
  const std::vector<std::byte>& bytes_;
  std::size_t at_ = 0;
};

/// One row: its length and columns where it is sparse, then values and bias of each array.
template <class T>
void write_row(const LayerRows<T>& rows, std::int64_t row, Writer& to) {
  const Range entries = entries_of(rows.pattern, row);
  if (!rows.pattern.is_dense()) {
    const std::int64_t length = entries.size();
    to.add(&length, 1);
    to.add(rows.pattern.col_indices().data() + entries.begin, length);
  }
  for (std::size_t a = 0; a < rows.values.size(); ++a) {
    to.add(rows.values[a].data() + entries.begin, entries.size());
    to.add(rows.biases[a].data() + row, 1);
  }
}

std::vector<std::uint32_t> numbers_below(std::int64_t count) {
  std::vector<std::uint32_t> numbers(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 0U);
  return numbers;
}

std::vector<std::vector<std::byte>> exchange_all(Communicator& comm, std::vector<Writer>& out) {
  std::vector<std::vector<std::byte>> blocks;
  for (Writer& writer : out) blocks.push_back(writer.take());
  return exchange_blocks(comm, std::move(blocks));
}

/// The entries of one row, each to the writer that `writer_of` names for its column: to every one
/// how many there are, their columns, and their values of each array. A dense row has `columns`.
template <class T, class WriterOf>
void write_entries(const LayerRows<T>& rows, std::int64_t row,
                   const std::vector<std::uint32_t>& columns, std::span<Writer> out,
                   const WriterOf& writer_of) {
  const Range entries = entries_of(rows.pattern, row);
  const std::uint32_t* const there =
      rows.pattern.is_dense() ? columns.data() : rows.pattern.col_indices().data() + entries.begin;
  std::vector<std::vector<std::int64_t>> chosen(out.size());
  for (std::int64_t i = 0; i < entries.size(); ++i) chosen[writer_of(there[i])].push_back(i);
  for (std::size_t w = 0; w < out.size(); ++w) {
    const std::int64_t count = std::ssize(chosen[w]);
    out[w].add(&count, 1);
    for (const std::int64_t i : chosen[w]) out[w].add(there + i, 1);
    for (const std::vector<T>& values : rows.values) {
      for (const std::int64_t i : chosen[w]) out[w].add(values.data() + entries.begin + i, 1);
    }
  }
}

/// Rows out of what `write_entries` wrote.
template <class T>
class RowBuilder {
 public:
  explicit RowBuilder(std::size_t arrays) : values_(arrays) {}

  /// The next row: all that the readers have of it, in the order of its columns.
  void add(std::span<Reader> in) {
    std::vector<std::uint32_t> columns;
    std::vector<std::vector<T>> values(values_.size());
    for (Reader& reader : in) {
      std::vector<std::int64_t> count;
      reader.append(count, 1);
      reader.append(columns, count[0]);
      for (std::vector<T>& array : values) reader.append(array, count[0]);
    }
    std::vector<std::uint32_t> order = numbers_below(std::ssize(columns));
    std::sort(order.begin(), order.end(),
              [&](std::uint32_t a, std::uint32_t b) { return columns[a] < columns[b]; });
    for (const std::uint32_t i : order) indices_.push_back(columns[i]);
    for (std::size_t a = 0; a < values.size(); ++a) {
      for (const std::uint32_t i : order) values_[a].push_back(values[a][i]);
    }
    offsets_.push_back(std::ssize(indices_));
  }

  /// All of them, without biases.
  LayerRows<T> take(bool dense, std::int64_t rows, std::int64_t cols) {
    LayerRows<T> taken;
    taken.pattern = dense ? Pattern::dense(rows, cols)
                          : Pattern(rows, cols, std::move(offsets_), std::move(indices_));
    taken.values = std::move(values_);
    return taken;
  }

 private:
  std::vector<std::int64_t> offsets_ = {0};
  std::vector<std::uint32_t> indices_;
  std::vector<std::vector<T>> values_;
};

}  // namespace

Pattern select_rows(const Pattern& pattern, std::span<const std::uint32_t> units) {
  if (pattern.is_dense()) return Pattern::dense(std::ssize(units), pattern.cols());
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> indices;
  for (const std::uint32_t unit : units) {
    const Range entries = entries_of(pattern, unit);
    indices.insert(indices.end(), pattern.col_indices().begin() + entries.begin,
                   pattern.col_indices().begin() + entries.end);
    offsets.push_back(std::ssize(indices));
  }
  return {std::ssize(units), pattern.cols(), std::move(offsets), std::move(indices)};
}

template <class T>
LayerRows<T> select_rows(const LayerRows<T>& rows, std::span<const std::uint32_t> units) {
  LayerRows<T> some;
  some.pattern = select_rows(rows.pattern, units);
  some.values.resize(rows.values.size());
  some.biases.resize(rows.biases.size());
  for (std::size_t a = 0; a < rows.values.size(); ++a) {
    for (const std::uint32_t unit : units) {
      const Range entries = entries_of(rows.pattern, unit);
      some.values[a].insert(some.values[a].end(), rows.values[a].begin() + entries.begin,
                            rows.values[a].begin() + entries.end);
      some.biases[a].push_back(rows.biases[a][unit]);
    }
  }
  return some;
}

LayerPartition all_on(int rank, int ranks, std::int64_t rows) {
  LayerPartition all;
  all.rows = numbers_below(rows);
  for (int part = 0; part <= ranks; ++part) all.offsets.push_back(part > rank ? rows : 0);
  return all;
}

template <class T>
LayerRows<T> move_rows(Communicator& comm, const LayerPartition& from, const LayerPartition& to,
                       LayerRows<T> rows) {
  if (comm.size() == 1 && from.rows == to.rows) return rows;
  const std::vector<std::uint32_t> next = owners_of(to);
  std::vector<Writer> out(static_cast<std::size_t>(comm.size()));
  std::int64_t row = 0;
  for (const std::uint32_t unit : part_of(from, comm.rank())) {
    write_row(rows, row++, out[next[unit]]);
  }
  std::vector<std::vector<std::byte>> blocks = exchange_all(comm, out);
  const std::vector<std::uint32_t> before = owners_of(from);
  std::vector<Reader> in(blocks.begin(), blocks.end());
  const bool dense = rows.pattern.is_dense();
  const std::int64_t cols = rows.pattern.cols();
  LayerRows<T> moved;
  moved.values.resize(rows.values.size());
  moved.biases.resize(rows.biases.size());
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> indices;
  std::vector<std::int64_t> length;
  const std::span<const std::uint32_t> own = part_of(to, comm.rank());
  for (const std::uint32_t unit : own) {
    Reader& reader = in[before[unit]];
    length = {cols};
    if (!dense) {
      length.clear();
      reader.append(length, 1);
      reader.append(indices, length[0]);
      offsets.push_back(std::ssize(indices));
    }
    for (std::size_t a = 0; a < moved.values.size(); ++a) {
      reader.append(moved.values[a], length[0]);
      reader.append(moved.biases[a], 1);
    }
  }
  moved.pattern = dense ? Pattern::dense(std::ssize(own), cols)
                        : Pattern(std::ssize(own), cols, std::move(offsets), std::move(indices));
  return moved;
}

template <class T>
LayerRows<T> rows_to_columns(Communicator& comm, const LayerPartition& units,
                             const std::vector<std::uint32_t>& column_owners,
                             const LayerRows<T>& rows) {
  std::vector<Writer> out(static_cast<std::size_t>(comm.size()));
  const std::span<const std::uint32_t> own = part_of(units, comm.rank());
  const std::vector<std::uint32_t> all_columns = numbers_below(rows.pattern.cols());
  for (std::size_t row = 0; row < own.size(); ++row) {
    write_entries(rows, static_cast<std::int64_t>(row), all_columns, out,
                  [&](std::uint32_t column) { return column_owners[column]; });
  }
  std::vector<std::vector<std::byte>> blocks = exchange_all(comm, out);
  std::vector<Reader> in(blocks.begin(), blocks.end());
  const std::vector<std::uint32_t> owners = owners_of(units);
  RowBuilder<T> builder(rows.values.size());
  for (const std::uint32_t owner : owners) builder.add(std::span(&in[owner], 1));
  const auto all = std::ssize(owners);
  const std::int64_t cols = rows.pattern.is_dense()
                                ? std::count(column_owners.begin(), column_owners.end(),
                                             static_cast<std::uint32_t>(comm.rank()))
                                : rows.pattern.cols();
  LayerRows<T> columns = builder.take(rows.pattern.is_dense(), all, cols);
  for (const std::vector<T>& from : rows.biases) {
    std::vector<T>& biases = columns.biases.emplace_back(owners.size());
    for (std::size_t row = 0; row < own.size(); ++row) biases[own[row]] = from[row];
  }
  return columns;
}

template <class T>
LayerRows<T> columns_to_rows(Communicator& comm, const LayerPartition& units,
                             const std::vector<std::uint32_t>& column_owners,
                             const LayerRows<T>& columns) {
  const std::vector<std::uint32_t> owners = owners_of(units);
  std::vector<std::uint32_t> own_columns;
  for (std::size_t column = 0; column < column_owners.size(); ++column) {
    if (static_cast<int>(column_owners[column]) == comm.rank()) {
      own_columns.push_back(static_cast<std::uint32_t>(column));
    }
  }
  std::vector<Writer> out(static_cast<std::size_t>(comm.size()));
  for (std::size_t unit = 0; unit < owners.size(); ++unit) {
    write_entries(columns, static_cast<std::int64_t>(unit), own_columns,
                  std::span(&out[owners[unit]], 1), [](std::uint32_t /*column*/) { return 0; });
  }
  std::vector<std::vector<std::byte>> blocks = exchange_all(comm, out);
  std::vector<Reader> in(blocks.begin(), blocks.end());
  const std::span<const std::uint32_t> own = part_of(units, comm.rank());
  RowBuilder<T> builder(columns.values.size());
  for (std::size_t row = 0; row < own.size(); ++row) builder.add(in);
  LayerRows<T> rows =
      builder.take(columns.pattern.is_dense(), std::ssize(own), std::ssize(column_owners));
  for (const std::vector<T>& from : columns.biases) {
    std::vector<T>& biases = rows.biases.emplace_back();
    for (const std::uint32_t unit : own) biases.push_back(from[unit]);
  }
  return rows;
}

template LayerRows<float> rows_to_columns(Communicator&, const LayerPartition&,
                                          const std::vector<std::uint32_t>&,
                                          const LayerRows<float>&);
template LayerRows<double> rows_to_columns(Communicator&, const LayerPartition&,
                                           const std::vector<std::uint32_t>&,
                                           const LayerRows<double>&);
template LayerRows<float> columns_to_rows(Communicator&, const LayerPartition&,
                                          const std::vector<std::uint32_t>&,
                                          const LayerRows<float>&);
template LayerRows<double> columns_to_rows(Communicator&, const LayerPartition&,
                                           const std::vector<std::uint32_t>&,
                                           const LayerRows<double>&);
template LayerRows<float> select_rows(const LayerRows<float>&, std::span<const std::uint32_t>);
template LayerRows<double> select_rows(const LayerRows<double>&, std::span<const std::uint32_t>);
template LayerRows<float> move_rows(Communicator&, const LayerPartition&, const LayerPartition&,
                                    LayerRows<float>);
template LayerRows<double> move_rows(Communicator&, const LayerPartition&, const LayerPartition&,
                                     LayerRows<double>);

}  // namespace spdnn::train
