// The weights of `spmm_tile`: rows grouped into tiles whose input features fit shared memory, their
// columns as 16-bit positions in the tile's list of features. Plain C++, built on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn::cuda {

/// Entries a lane loads at once; each row starts at a multiple of it.
inline constexpr int kEntriesPerLoad = 8;

struct Tile {
  std::int64_t footprint_begin = 0;  ///< into `footprint`
  std::int64_t row_begin = 0;        ///< into `rows`
  std::int32_t footprint_count = 0;
  std::int32_t row_count = 0;
};

struct TileRow {
  std::int64_t entry_begin = 0;  ///< into `local` and `values`, a multiple of `kEntriesPerLoad`
  std::int32_t row = 0;          ///< of the matrix
  std::int32_t count = 0;        ///< entries, in stored order
};

/// The arrays, host or device, as the kernel reads them.
struct TileView {
  const Tile* tiles = nullptr;
  const std::uint32_t* footprint = nullptr;
  const TileRow* rows = nullptr;
  const std::uint16_t* local = nullptr;
  const float* values = nullptr;  ///< beside `local`, or one that all entries share
  std::int64_t tile_count = 0;
};

struct TileFormat {
  std::vector<Tile> tiles;
  std::vector<std::uint32_t> footprint;  ///< the tiles' columns, in order of first use
  std::vector<TileRow> rows;             ///< every row once
  std::vector<std::uint16_t> local;
  std::vector<float> values;
  std::int32_t max_footprint = 0;
  [[nodiscard]] TileView view() const;
};

struct TileLimits {
  std::int64_t wanted_features = 0;  ///< a tile takes rows up to this footprint
  std::int64_t most_features = 0;    ///< a single row may go up to this one
  std::int64_t rows = 128;           ///< a tile takes at most so many rows
};

/// Groups the rows of a matrix in host memory (u16 or u32 columns, f32 values). Rows that use the
/// same columns come together wherever they stand. Takes O(nnz + rows · log rows). Throws
/// `DeviceError` where one row's footprint passes `most_features`.
[[nodiscard]] TileFormat build_tiles(const CsrView& csr, const TileLimits& limits);

}  // namespace spdnn::cuda
