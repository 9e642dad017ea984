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
  all.rows.resize(static_cast<std::size_t>(rows));
  std::iota(all.rows.begin(), all.rows.end(), 0U);
  for (int part = 0; part <= ranks; ++part) all.offsets.push_back(part > rank ? rows : 0);
  return all;
}

template <class T>
LayerRows<T> move_rows(Communicator& comm, const LayerPartition& from, const LayerPartition& to,
                       LayerRows<T> rows) {
  const std::vector<std::uint32_t> next = owners_of(to);
  std::vector<Writer> out(static_cast<std::size_t>(comm.size()));
  std::int64_t row = 0;
  for (const std::uint32_t unit : part_of(from, comm.rank())) {
    write_row(rows, row++, out[next[unit]]);
  }
  std::vector<std::vector<std::byte>> blocks;
  for (Writer& writer : out) blocks.push_back(writer.take());
  blocks = exchange_blocks(comm, std::move(blocks));

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

template LayerRows<float> select_rows(const LayerRows<float>&, std::span<const std::uint32_t>);
template LayerRows<double> select_rows(const LayerRows<double>&, std::span<const std::uint32_t>);
template LayerRows<float> move_rows(Communicator&, const LayerPartition&, const LayerPartition&,
                                    LayerRows<float>);
template LayerRows<double> move_rows(Communicator&, const LayerPartition&, const LayerPartition&,
                                     LayerRows<double>);

}  // namespace spdnn::train
