// Device code that changes which connections a layer has; mapping and costs are described in
// rewire.cu. All kernels take a grid of any size.
#pragma once

#include "cuda/select.cuh"
#include "spdnn/rewire_op.hpp"

namespace spdnn::cuda {

/// Marks what has no connection to come from.
inline constexpr std::uint32_t kNoEntry = 0xffffffffU;

/// The first of `count` ascending numbers that is no less than `bar`.
template <class T>
__device__ __forceinline__ std::int64_t lower_bound(const T* numbers, std::int64_t count,
                                                    std::int64_t bar) {
  std::int64_t begin = 0;
#pragma unroll 1
  while (count > 0) {
    const std::int64_t half = count / 2;
    const bool is_less = static_cast<std::int64_t>(numbers[begin + half]) < bar;
    begin = is_less ? begin + half + 1 : begin;
    count = is_less ? count - half - 1 : half;
  }
  return begin;
}

/// The row that entry k is in.
__device__ __forceinline__ std::int64_t row_of(const PatternArrays& pattern, std::int64_t k) {
  return lower_bound(pattern.row_offsets, pattern.rows + 1, k + 1) - 1;
}

/// Where the entry at a place is, or would have to stand.
__device__ __forceinline__ std::int64_t entry_at(const PatternArrays& pattern, std::int64_t place) {
  const std::int64_t row = place / pattern.cols;
  const std::int64_t begin = pattern.row_offsets[row];
  return begin + lower_bound(pattern.col_indices + begin, pattern.row_offsets[row + 1] - begin,
                             place % pattern.cols);
}

__device__ __forceinline__ bool is_connected(const PatternArrays& pattern, std::int64_t place) {
  const std::int64_t k = entry_at(pattern, place);
  return k < pattern.row_offsets[place / pattern.cols + 1] &&
         pattern.col_indices[k] == place % pattern.cols;
}

/// Keys that are largest where a value is smallest. A thread a value.
inline __global__ void __launch_bounds__(SelectTraits::block)
    small_values_kernel(const float* values, std::int64_t count, std::uint32_t* keys) {
  for (std::int64_t i = thread_item(); i < count; i += thread_step()) {
    keys[i] = ~magnitude_order(__float_as_uint(values[i]));
  }
}

/// Keys of gradients, in their place: 1 for 0 and for NaNs, which have no order, larger ones for
/// larger ones. A thread a gradient.
inline __global__ void __launch_bounds__(SelectTraits::block)
    gradient_keys_kernel(std::uint32_t* gradient, std::int64_t count) {
  constexpr std::uint32_t kInfinity = 0x7f800000U;
  for (std::int64_t i = thread_item(); i < count; i += thread_step()) {
    const std::uint32_t order = magnitude_order(gradient[i]);
    gradient[i] = order > kInfinity ? 1 : order + 1;
  }
}

/// The keys of places with a connection that stays become 0. A warp a row.
inline __global__ void __launch_bounds__(SelectTraits::block)
    clear_kept_kernel(PatternArrays pattern, const std::uint32_t* kept_before, Range rows,
                      std::uint32_t* keys) {
  for (std::int64_t row = rows.begin + warp_item(); row < rows.end; row += warp_step()) {
    std::uint32_t* const of_row = keys + (row - rows.begin) * pattern.cols;
    const std::int64_t end = pattern.row_offsets[row + 1];
    for (std::int64_t k = pattern.row_offsets[row] + threadIdx.x % kWarp; k < end; k += kWarp) {
      if (kept_before[k + 1] > kept_before[k]) of_row[pattern.col_indices[k]] = 0;
    }
  }
}

/// What is drawn: `count` places of a layer, of which those with a connection don't count.
struct Draws {
  PatternArrays pattern;
  Random random;
  std::int64_t count = 0;
  __device__ std::int64_t place(std::int64_t number) const {
    return drawn_place(random, number, pattern.rows * pattern.cols);
  }
};

/// The column of each draw, to sort by. A thread a draw.
inline __global__ void __launch_bounds__(SelectTraits::block)
    drawn_columns_kernel(Draws draws, std::uint32_t* columns, std::uint32_t* numbers) {
  for (std::int64_t i = thread_item(); i < draws.count; i += thread_step()) {
    columns[i] = static_cast<std::uint32_t>(draws.place(i) % draws.pattern.cols);
    numbers[i] = static_cast<std::uint32_t>(i);
  }
}

/// The row of draw `numbers[i]`, or past all of them where its place is taken. A thread a draw.
inline __global__ void __launch_bounds__(SelectTraits::block)
    drawn_rows_kernel(Draws draws, const std::uint32_t* numbers, std::uint32_t* rows) {
  const PatternArrays& pattern = draws.pattern;
  for (std::int64_t i = thread_item(); i < draws.count; i += thread_step()) {
    const std::int64_t place = draws.place(numbers[i]);
    rows[i] = static_cast<std::uint32_t>(is_connected(pattern, place) ? pattern.rows
                                                                      : place / pattern.cols);
  }
}

/// is_first[n] ← whether draw n is the first of its place, and that is free; `rows` and `numbers`
/// are in order of places, draws of one place in theirs. A thread a draw.
inline __global__ void __launch_bounds__(SelectTraits::block)
    first_draws_kernel(Draws draws, const std::uint32_t* rows, const std::uint32_t* numbers,
                       std::uint32_t* is_first) {
  for (std::int64_t i = thread_item(); i < draws.count; i += thread_step()) {
    const bool is_free = rows[i] < draws.pattern.rows;
    is_first[numbers[i]] =
        is_free && (i == 0 || draws.place(numbers[i - 1]) != draws.place(numbers[i])) ? 1 : 0;
  }
}

/// The places of draws in order, and as keys whether they are to grow. A thread a draw.
inline __global__ void __launch_bounds__(SelectTraits::block)
    drawn_places_kernel(Draws draws, const std::uint32_t* numbers,
                        const std::uint32_t* taken_before, std::uint32_t* keys,
                        std::int64_t* places) {
  for (std::int64_t i = thread_item(); i < draws.count; i += thread_step()) {
    const std::uint32_t number = numbers[i];
    keys[i] = taken_before[number + 1] - taken_before[number];
    places[i] = draws.place(number);
  }
}

/// One thread: how many of the places that are wanted were drawn.
inline __global__ void __launch_bounds__(SelectTraits::block)
    report_draws_kernel(const Selection* selection, std::int64_t wanted, std::int64_t* found) {
  if (thread_item() > 0) return;
  *found = selection->all_equal < wanted ? selection->all_equal : wanted;
}

/// A layer between its old connections and its new ones.
struct Change {
  PatternArrays old;
  const std::uint32_t* kept_before = nullptr;  ///< nnz + 1
  const std::int64_t* grown = nullptr;         ///< places, ascending
  std::int64_t count = 0;                      ///< of them
  std::int64_t* row_offsets = nullptr;         ///< out: rows + 1
  std::uint32_t* col_indices = nullptr;        ///< out: nnz
  std::uint32_t* source = nullptr;  ///< out: nnz, the old entry of each, `kNoEntry` of what grew
};

/// Where each new connection stands: behind those that stay and those that grow before its place. A
/// thread an old entry, a grown place or a row.
inline __global__ void __launch_bounds__(SelectTraits::block) merge_kernel(Change change) {
  const PatternArrays& old = change.old;
  const std::int64_t items = old.nnz + change.count + old.rows + 1;
#pragma unroll 1
  for (std::int64_t item = thread_item(); item < items; item += thread_step()) {
    if (item < old.nnz) {
      const std::uint32_t kept = change.kept_before[item];
      if (change.kept_before[item + 1] == kept) continue;
      const std::uint32_t col = old.col_indices[item];
      const std::int64_t place = row_of(old, item) * old.cols + col;
      const std::int64_t to = kept + lower_bound(change.grown, change.count, place);
      change.col_indices[to] = col;
      change.source[to] = static_cast<std::uint32_t>(item);
    } else if (item < old.nnz + change.count) {
      const std::int64_t i = item - old.nnz;
      const std::int64_t place = change.grown[i];
      const std::int64_t to = i + change.kept_before[entry_at(old, place)];
      change.col_indices[to] = static_cast<std::uint32_t>(place % old.cols);
      change.source[to] = kNoEntry;
    } else {
      const std::int64_t row = item - old.nnz - change.count;
      change.row_offsets[row] = change.kept_before[old.row_offsets[row]] +
                                lower_bound(change.grown, change.count, row * old.cols);
    }
  }
}

/// to[i] ← from[source[i]], or 0 for what grew. A thread an entry.
inline __global__ void __launch_bounds__(SelectTraits::block)
    move_entries_kernel(const float* from, const std::uint32_t* source, std::int64_t count,
                        float* to) {
  for (std::int64_t i = thread_item(); i < count; i += thread_step()) {
    to[i] = source[i] == kNoEntry ? 0.0F : from[source[i]];
  }
}

inline __global__ void __launch_bounds__(SelectTraits::block)
    number_kernel(std::uint32_t* numbers, std::int64_t count) {
  for (std::int64_t i = thread_item(); i < count; i += thread_step()) {
    numbers[i] = static_cast<std::uint32_t>(i);
  }
}

/// What the view by columns has beside `entries`, which are in its order, as are `columns`. A
/// thread an entry or a column.
inline __global__ void __launch_bounds__(SelectTraits::block)
    columns_kernel(PatternArrays pattern, const std::uint32_t* columns) {
  const std::int64_t items = pattern.nnz + pattern.cols + 1;
#pragma unroll 1
  for (std::int64_t item = thread_item(); item < items; item += thread_step()) {
    if (item < pattern.nnz) {
      pattern.row_indices[item] =
          static_cast<std::uint32_t>(row_of(pattern, pattern.entries[item]));
    } else {
      const std::int64_t col = item - pattern.nnz;
      pattern.col_offsets[col] = lower_bound(columns, pattern.nnz, col);
    }
  }
}

}  // namespace spdnn::cuda
