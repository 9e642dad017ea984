// The layout of a `.spdnn` file, version 1. All numbers are little-endian.
//
//   header       64 bytes, `CacheHeader`
//   sections     for each matrix: row offsets (int64, rows + 1 of them, from 0; none when all rows
//                are equally long), column indices (nnz), values (one when shared, else nnz); each
//                section starts at the next multiple of 64 bytes, and what lies between is zero
//   table        at the next multiple of 64 bytes: one `CacheMatrix` for each matrix, then the
//                sources (count, then length, name, bytes and time of each), then the origin
//                (length, text); lengths and counts are uint32; the file ends with it
//
// Every byte of the file is covered: sections by their checksum (XXH3-64), header and table by the
// header's, gaps by being zero. Positions follow from the sizes, so the table needs to hold none.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "spdnn/matrix.hpp"

namespace spdnn {

static_assert(std::endian::native == std::endian::little, "caches are mapped as they are");

inline constexpr std::array<char, 8> kCacheMagic = {'S', 'P', 'D', 'N', 'N', 'C', 'S', 'R'};
inline constexpr std::uint32_t kCacheVersion = 1;
inline constexpr std::int64_t kCacheAlignment = 64;
/// Most rows or columns of a matrix; column indices have 32 bits.
inline constexpr std::int64_t kCacheMaxDimension = std::int64_t{1} << 32;

struct CacheHeader {
  std::array<char, 8> magic = kCacheMagic;
  std::uint32_t version = kCacheVersion;
  std::uint32_t reserved = 0;
  std::int64_t file_bytes = 0;
  std::int64_t table_at = 0;
  std::int64_t matrices = 0;
  /// XXH3 of the table, seeded with the XXH3 of this header in which this field is 0.
  std::uint64_t checksum = 0;
  std::array<std::uint64_t, 2> unused = {};
};
static_assert(sizeof(CacheHeader) == 64);

struct CacheMatrix {
  std::int64_t rows = 0, cols = 0, nnz = 0;
  std::int64_t row_nnz = 0;                     ///< of every row, when there are no row offsets
  std::array<std::uint64_t, 3> checksums = {};  ///< of row offsets, columns, values
  std::uint8_t has_offsets = 0;
  std::uint8_t index_bytes = 0;  ///< 2 or 4
  std::uint8_t value_bytes = 0;  ///< 4 (float) or 8 (double)
  std::uint8_t shared_value = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(CacheMatrix) == 64);

/// Bytes of a matrix's three sections.
[[nodiscard]] constexpr std::array<std::int64_t, 3> section_bytes(const CacheMatrix& matrix) {
  const std::int64_t values = matrix.shared_value != 0 ? (matrix.nnz > 0 ? 1 : 0) : matrix.nnz;
  return {matrix.has_offsets != 0 ? (matrix.rows + 1) * std::int64_t{sizeof(std::int64_t)} : 0,
          matrix.nnz * matrix.index_bytes, values * matrix.value_bytes};
}

/// The next position a section may start at.
[[nodiscard]] constexpr std::int64_t aligned(std::int64_t position) {
  return (position + kCacheAlignment - 1) / kCacheAlignment * kCacheAlignment;
}

}  // namespace spdnn
