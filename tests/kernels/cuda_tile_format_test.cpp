// The tiles of `spmm_tile`: every row once, its columns in stored order, footprints within limits.
#include <gtest/gtest.h>

#include <set>

#include "cuda/tile_format.hpp"
#include "support/networks.hpp"

namespace spdnn {
namespace {

using test::Rows;

/// Reads the tiles back and holds them against the matrix they were made from.
void check_tiles(const CsrView& csr, const cuda::TileFormat& format,
                 const cuda::TileLimits& limits) {
  std::vector<int> seen(static_cast<std::size_t>(csr.rows));
  std::int32_t widest = 0;
  for (const cuda::Tile& tile : format.tiles) {
    widest = std::max(widest, tile.footprint_count);
    ASSERT_GT(tile.row_count, 0);
    ASSERT_LE(tile.row_count, limits.rows);
    ASSERT_LE(tile.footprint_count, limits.most_features);
    if (tile.row_count > 1) {
      ASSERT_LE(tile.footprint_count, limits.wanted_features);
    }
    for (std::int32_t i = 0; i < tile.row_count; ++i) {
      const cuda::TileRow& row = format.rows[tile.row_begin + i];
      ++seen[row.row];
      ASSERT_EQ(row.entry_begin % cuda::kEntriesPerLoad, 0);
      ASSERT_EQ(row.count, csr.row_begin(row.row + 1) - csr.row_begin(row.row));
      for (std::int32_t k = 0; k < row.count; ++k) {
        const std::uint16_t local = format.local[row.entry_begin + k];
        ASSERT_LT(local, tile.footprint_count);
        const std::int64_t entry = csr.row_begin(row.row) + k;
        ASSERT_EQ(format.footprint[tile.footprint_begin + local], csr.col(entry));
        const float value = format.values[csr.shared_value ? 0 : row.entry_begin + k];
        ASSERT_EQ(value, static_cast<float>(csr.value(entry)));
      }
    }
  }
  ASSERT_EQ(widest, format.max_footprint);
  for (const int times : seen) ASSERT_EQ(times, 1);
}

TEST(CudaTileFormat, HoldsTheMatrix) {
  std::mt19937_64 random(3);
  for (const bool shared : {false, true}) {
    for (const Rows pattern : {Rows::equal, Rows::irregular, Rows::one_dense, Rows::empty}) {
      for (const std::int64_t rows : {0, 1, 31, 33, 260}) {
        const Csr matrix = test::random_csr({rows, 90, 12, pattern, shared}, random);
        for (const std::int64_t wanted : {1, 12, 40, 90}) {
          const cuda::TileLimits limits{wanted, 90, 1 + rows / 3};
          const cuda::TileFormat format = cuda::build_tiles(matrix.view(), limits);
          ASSERT_NO_FATAL_FAILURE(check_tiles(matrix.view(), format, limits));
        }
      }
    }
  }
}

TEST(CudaTileFormat, BringsRowsWithEqualColumnsTogether) {
  // Row r uses the four columns of class r mod 8: eight classes of 16 rows, far apart.
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> cols;
  for (std::uint32_t row = 0; row < 128; ++row) {
    for (std::uint32_t i = 0; i < 4; ++i) cols.push_back((i + row / 8) % 4 * 8 + row % 8);
    offsets.push_back(std::ssize(cols));
  }
  const Csr matrix = make_csr(128, 32, offsets, cols, {0.5F});
  const cuda::TileLimits limits{4, 32, 128};
  const cuda::TileFormat format = cuda::build_tiles(matrix.view(), limits);
  EXPECT_EQ(format.tiles.size(), 8U);
  ASSERT_NO_FATAL_FAILURE(check_tiles(matrix.view(), format, limits));
}

TEST(CudaTileFormat, CountsARepeatedColumnOnce) {
  const Csr matrix = make_csr(2, 9, {0, 4, 7}, {3, 3, 8, 3, 8, 8, 3}, {1, 2, 3, 4, 5, 6, 7});
  const cuda::TileLimits limits{2, 2, 16};
  const cuda::TileFormat format = cuda::build_tiles(matrix.view(), limits);
  EXPECT_EQ(format.tiles.size(), 1U);
  EXPECT_EQ(format.max_footprint, 2);
  ASSERT_NO_FATAL_FAILURE(check_tiles(matrix.view(), format, limits));
}

TEST(CudaTileFormat, RefusesARowThatDoesNotFit) {
  std::mt19937_64 random(4);
  const Csr matrix = test::random_csr({10, 50, 3, Rows::one_dense, false}, random);
  EXPECT_THROW((void)cuda::build_tiles(matrix.view(), {10, 49, 128}), DeviceError);
  EXPECT_NO_THROW((void)cuda::build_tiles(matrix.view(), {10, 50, 128}));
}

}  // namespace
}  // namespace spdnn
