// From pieces of parsed text to one matrix: joined as they are where the text is in row order,
// brought into it by a counting sort otherwise.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <compare>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "spdnn/matrix.hpp"
#include "tsv_chunk.hpp"

namespace spdnn {

/// The entries of one piece of text.
template <class Index>
struct Chunk {
  std::vector<Index> cols;
  std::vector<float> values;  ///< one for all entries, or one for each
  std::vector<TsvRun> runs;
  bool ascending = true;
  bool blank = false;
  std::optional<std::string> error;

  [[nodiscard]] std::int64_t size() const { return std::ssize(cols); }
  [[nodiscard]] float value(std::int64_t entry) const {
    return values.size() == 1 ? values[0] : values[static_cast<std::size_t>(entry)];
  }
  /// Calls `body(row, begin, end)` for each run.
  template <class Body>
  void for_each_run(const Body& body) const {
    for (std::size_t run = 0; run < runs.size(); ++run) {
      const std::int64_t end = run + 1 < runs.size() ? runs[run + 1].begin : size();
      body(std::int64_t{runs[run].row}, std::int64_t{runs[run].begin}, end);
    }
  }
};

/// The arrays of a matrix read from text.
template <class Index>
struct TsvMatrix final : Storage {
  std::vector<std::int64_t> row_offsets;
  std::vector<Index> cols;
  std::vector<float> values;
};

/// The first line that can't be part of the file, and why.
struct BadLine {
  std::int64_t line = std::numeric_limits<std::int64_t>::max();
  std::string message;
};

/// Keeps the chunks up to the first bad line that shows without looking at other lines, and returns
/// that line. No blank line stands before an entry, so an entry's line is its index + 1.
template <class Index>
BadLine cut_at_bad_line(std::vector<Chunk<Index>>& chunks) {
  std::int64_t line = 1;
  bool blank = false;
  for (std::size_t c = 0; c < chunks.size(); ++c) {
    Chunk<Index>& chunk = chunks[c];
    if (blank && (chunk.size() > 0 || chunk.error)) {
      chunks.resize(c);
      return {line, "blank line between entries; remove it"};
    }
    line += chunk.size();
    if (chunk.error) {
      BadLine bad{line, std::move(*chunk.error)};
      chunks.resize(c + 1);
      return bad;
    }
    blank = blank || chunk.blank;
  }
  return {};
}

/// Entries of all chunks, those that stand twice included.
template <class Index>
std::int64_t count_entries(const std::vector<Chunk<Index>>& chunks) {
  std::int64_t entries = 0;
  for (const auto& chunk : chunks) entries += chunk.size();
  return entries;
}

/// Whether (row, column) ascends strictly through all chunks: no sorting needed, no duplicates.
template <class Index>
bool in_order(const std::vector<Chunk<Index>>& chunks) {
  std::pair<std::int64_t, std::int64_t> last{-1, -1};
  for (const auto& chunk : chunks) {
    if (chunk.cols.empty()) continue;
    const std::pair<std::int64_t, std::int64_t> first{chunk.runs.front().row, chunk.cols.front()};
    if (!chunk.ascending || first <= last) return false;
    last = {chunk.runs.back().row, chunk.cols.back()};
  }
  return true;
}

/// 1 more than the largest row; 0 where there is no entry.
template <class Index>
std::int64_t rows_in(const std::vector<Chunk<Index>>& chunks) {
  std::int64_t rows = 0;
  for (const auto& chunk : chunks) {
    for (const TsvRun& run : chunk.runs) rows = std::max(rows, std::int64_t{run.row} + 1);
  }
  return rows;
}

/// Row offsets [rows + 1] of the entries of all chunks.
template <class Index>
std::vector<std::int64_t> offsets_of(const std::vector<Chunk<Index>>& chunks, std::int64_t rows) {
  std::vector<std::int64_t> offsets(static_cast<std::size_t>(rows) + 1, 0);
  for (const auto& chunk : chunks) {
    chunk.for_each_run([&](std::int64_t row, std::int64_t begin, std::int64_t end) {
      offsets[static_cast<std::size_t>(row) + 1] += end - begin;
    });
  }
  for (std::size_t row = 1; row < offsets.size(); ++row) offsets[row] += offsets[row - 1];
  return offsets;
}

/// Whether all entries have one value, to the bit.
template <class Index>
bool one_value(const std::vector<Chunk<Index>>& chunks) {
  const auto bits = [](float value) { return std::bit_cast<std::uint32_t>(value); };
  std::optional<std::uint32_t> value;
  for (const auto& chunk : chunks) {
    if (chunk.cols.empty()) continue;
    if (chunk.values.size() != 1 && chunk.size() != 1) return false;
    if (value && *value != bits(chunk.values[0])) return false;
    value = bits(chunk.values[0]);
  }
  return true;
}

/// Moves the columns and values of chunks that are in order into `matrix`, one after another.
template <class Index>
void join(std::vector<Chunk<Index>>& chunks, std::int64_t entries, TsvMatrix<Index>& matrix) {
  const bool shared = one_value(chunks);
  if (chunks.size() == 1) {
    matrix.cols = std::move(chunks[0].cols);
    matrix.values = std::move(chunks[0].values);
    return;
  }
  matrix.cols.reserve(static_cast<std::size_t>(entries));
  if (!shared) matrix.values.reserve(static_cast<std::size_t>(entries));
  for (auto& chunk : chunks) {
    if (chunk.cols.empty()) continue;
    matrix.cols.insert(matrix.cols.end(), chunk.cols.begin(), chunk.cols.end());
    if (shared) {
      matrix.values.assign(1, chunk.values[0]);
    } else if (chunk.values.size() == chunk.cols.size()) {
      matrix.values.insert(matrix.values.end(), chunk.values.begin(), chunk.values.end());
    } else {
      matrix.values.insert(matrix.values.end(), chunk.cols.size(), chunk.values[0]);
    }
    chunk = {};
  }
}

/// Moves the entries to their rows, in the order of the text within a row.
template <class Index>
void scatter(const std::vector<Chunk<Index>>& chunks, std::int64_t entries,
             TsvMatrix<Index>& matrix) {
  const bool shared = one_value(chunks);
  matrix.cols.resize(static_cast<std::size_t>(entries));
  matrix.values.resize(shared ? 1 : static_cast<std::size_t>(entries));
  std::vector<std::int64_t> next(matrix.row_offsets.begin(), matrix.row_offsets.end() - 1);
  for (const auto& chunk : chunks) {
    chunk.for_each_run([&](std::int64_t row, std::int64_t begin, std::int64_t end) {
      for (std::int64_t entry = begin; entry < end; ++entry) {
        const auto to = static_cast<std::size_t>(next[static_cast<std::size_t>(row)]++);
        matrix.cols[to] = chunk.cols[static_cast<std::size_t>(entry)];
        matrix.values[shared ? 0 : to] = chunk.value(entry);
      }
    });
  }
}

/// Sorts each row by column; returns the rows in which a column stands twice.
template <class Index>
std::vector<bool> sort_rows(TsvMatrix<Index>& matrix) {
  const std::size_t rows = matrix.row_offsets.size() - 1;
  const bool shared = matrix.values.size() == 1;
  std::vector<bool> repeated(rows, false);
  std::vector<std::pair<Index, float>> entries;
  for (std::size_t row = 0; row < rows; ++row) {
    const auto begin = static_cast<std::size_t>(matrix.row_offsets[row]);
    const auto end = static_cast<std::size_t>(matrix.row_offsets[row + 1]);
    const auto first = matrix.cols.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto last = matrix.cols.begin() + static_cast<std::ptrdiff_t>(end);
    if (!std::is_sorted(first, last)) {
      if (shared) {
        std::sort(first, last);
      } else {
        entries.clear();
        for (std::size_t k = begin; k < end; ++k) {
          entries.emplace_back(matrix.cols[k], matrix.values[k]);
        }
        std::sort(entries.begin(), entries.end());
        for (std::size_t k = begin; k < end; ++k) {
          std::tie(matrix.cols[k], matrix.values[k]) = entries[k - begin];
        }
      }
    }
    repeated[row] = std::adjacent_find(first, last) != last;
  }
  return repeated;
}

/// The first line that repeats an earlier one; only the rows marked in `repeated` can hold one.
template <class Index>
BadLine first_repetition(const std::vector<Chunk<Index>>& chunks, const std::vector<bool>& repeated,
                         const TsvFormat& format) {
  struct Place {
    std::int64_t row, col, line;
    auto operator<=>(const Place&) const = default;
  };
  std::vector<Place> places;
  std::int64_t line = 1;
  for (const auto& chunk : chunks) {
    chunk.for_each_run([&](std::int64_t row, std::int64_t begin, std::int64_t end) {
      if (!repeated[static_cast<std::size_t>(row)]) return;
      for (std::int64_t k = begin; k < end; ++k) {
        places.push_back({row, chunk.cols[static_cast<std::size_t>(k)], line + k});
      }
    });
    line += chunk.size();
  }
  std::sort(places.begin(), places.end());
  Place found{0, 0, std::numeric_limits<std::int64_t>::max()};
  std::int64_t earlier = 0;
  for (std::size_t k = 1; k < places.size(); ++k) {
    const bool repeats = places[k].row == places[k - 1].row && places[k].col == places[k - 1].col;
    if (repeats && places[k].line < found.line) {
      found = places[k];
      earlier = places[k - 1].line;
    }
  }
  const std::int64_t first = (format.row_first ? found.row : found.col) + 1;
  const std::int64_t second = (format.row_first ? found.col : found.row) + 1;
  return {found.line, fmt::format("duplicate entry: {} {}, {} {} stands in line {} already; keep "
                                  "one of the two",
                                  format.first.name, first, format.second.name, second, earlier)};
}

/// Gives the arrays their smallest form and wraps them.
template <class Index>
Csr finish(std::shared_ptr<TsvMatrix<Index>> matrix, std::int64_t rows, std::int64_t cols) {
  CsrView view;
  view.rows = rows;
  view.cols = cols;
  view.nnz = std::ssize(matrix->cols);
  const auto& offsets = matrix->row_offsets;
  view.row_nnz = rows > 0 ? offsets[1] : 0;
  const auto uneven = [&](std::int64_t begin, std::int64_t end) {
    return end - begin != view.row_nnz;
  };
  if (std::adjacent_find(offsets.begin(), offsets.end(), uneven) == offsets.end()) {
    matrix->row_offsets = {};
  } else {
    view.row_offsets = offsets.data();
    view.row_nnz = 0;
  }
  view.col_indices = matrix->cols.data();
  view.index_type = dtype_of<Index>;
  view.values = matrix->values.data();
  view.shared_value = matrix->values.size() == 1;
  return {view, std::move(matrix)};
}

}  // namespace spdnn
