// Builds the tiles of `spmm_tile`.
#include "cuda/tile_format.hpp"

#include <algorithm>
#include <string>
#include <tuple>

namespace spdnn::cuda {
namespace {

/// What brings rows with equal columns together: the smallest column, then a hash of the set.
struct RowKey {
  std::uint32_t min_col = 0;
  std::uint64_t columns = 0;
  std::int32_t row = 0;
  friend bool operator<(const RowKey& a, const RowKey& b) {
    return std::tie(a.min_col, a.columns, a.row) < std::tie(b.min_col, b.columns, b.row);
  }
};

/// A bijection of 64-bit words in which every input bit reaches every output bit.
std::uint64_t scramble(std::uint64_t word) {
  word = (word ^ (word >> 32)) * 0xd6e8feb86659fd93ULL;
  word = (word ^ (word >> 32)) * 0xd6e8feb86659fd93ULL;
  return word ^ (word >> 32);
}

template <class Index>
class Builder {
 public:
  Builder(const CsrView& csr, const TileLimits& limits)
      : csr_(csr),
        limits_(limits),
        cols_(static_cast<const Index*>(csr.col_indices)),
        position_(static_cast<std::size_t>(csr.cols)),
        last_tile_(static_cast<std::size_t>(csr.cols), -1) {}

  TileFormat build() {
    reserve();
    for (const RowKey& key : sorted_keys()) add_row(key.row);
    close_tile();
    if (csr_.shared_value && csr_.nnz > 0) {
      format_.values = {static_cast<const float*>(csr_.values)[0]};
    }
    return std::move(format_);
  }

 private:
  [[nodiscard]] std::vector<RowKey> sorted_keys() const {
    std::vector<RowKey> keys(static_cast<std::size_t>(csr_.rows));
    for (std::int64_t row = 0; row < csr_.rows; ++row) {
      RowKey key{~std::uint32_t{0}, 0, static_cast<std::int32_t>(row)};
      for (std::int64_t k = csr_.row_begin(row); k < csr_.row_begin(row + 1); ++k) {
        key.min_col = std::min<std::uint32_t>(key.min_col, cols_[k]);
        key.columns += scramble(std::uint64_t{cols_[k]} + 1);  // in any order
      }
      keys[static_cast<std::size_t>(row)] = key;
    }
    std::sort(keys.begin(), keys.end());
    return keys;
  }

  void reserve() {
    format_.rows.reserve(static_cast<std::size_t>(csr_.rows));
    const auto most = static_cast<std::size_t>(csr_.nnz + csr_.rows * (kEntriesPerLoad - 1));
    format_.local.reserve(most);
    if (!csr_.shared_value) format_.values.reserve(most);
  }

  /// Features the row would add to the open tile.
  [[nodiscard]] std::int64_t new_features(std::int64_t begin, std::int64_t end) {
    ++probe_;
    std::int64_t count = 0;
    for (std::int64_t k = begin; k < end; ++k) {
      const std::size_t col = cols_[k];
      if (last_tile_[col] == tile_id_ || last_tile_[col] == -1 - probe_) continue;
      last_tile_[col] = -1 - probe_;  // counted once, though a row may name a column twice
      ++count;
    }
    return count;
  }

  void add_row(std::int32_t row) {
    const std::int64_t begin = csr_.row_begin(row);
    const std::int64_t end = csr_.row_begin(row + 1);
    const std::int64_t added = new_features(begin, end);
    const std::int64_t limit = std::max<std::int64_t>(limits_.wanted_features, 1);
    if (tile_.row_count > 0 &&
        (tile_.footprint_count + added > limit || tile_.row_count >= limits_.rows)) {
      close_tile();
    }
    const auto start = static_cast<std::int64_t>(format_.local.size());
    for (std::int64_t k = begin; k < end; ++k) format_.local.push_back(local_of(cols_[k]));
    if (tile_.footprint_count > limits_.most_features) {
      throw DeviceError("spmm_tile: row " + std::to_string(row) + " uses " +
                        std::to_string(tile_.footprint_count) +
                        " inputs, but shared memory holds " +
                        std::to_string(limits_.most_features) +
                        " of a panel; choose another kernel, e.g. spmm_row_warp");
    }
    if (!csr_.shared_value) {
      const auto* values = static_cast<const float*>(csr_.values);
      format_.values.insert(format_.values.end(), values + begin, values + end);
    }
    format_.rows.push_back({start, row, static_cast<std::int32_t>(end - begin)});
    ++tile_.row_count;
    while (format_.local.size() % kEntriesPerLoad != 0) format_.local.push_back(0);
    if (!csr_.shared_value) format_.values.resize(format_.local.size());
  }

  std::uint16_t local_of(std::size_t col) {
    if (last_tile_[col] != tile_id_) {
      last_tile_[col] = tile_id_;
      position_[col] = static_cast<std::uint16_t>(tile_.footprint_count++);
      format_.footprint.push_back(static_cast<std::uint32_t>(col));
    }
    return position_[col];
  }

  void close_tile() {
    if (tile_.row_count == 0) return;
    format_.max_footprint = std::max(format_.max_footprint, tile_.footprint_count);
    format_.tiles.push_back(tile_);
    tile_ = Tile{static_cast<std::int64_t>(format_.footprint.size()),
                 static_cast<std::int64_t>(format_.rows.size()), 0, 0};
    ++tile_id_;
  }

  const CsrView& csr_;
  const TileLimits& limits_;
  const Index* cols_;
  TileFormat format_;
  Tile tile_;
  std::int64_t tile_id_ = 0;
  std::int64_t probe_ = 0;
  std::vector<std::uint16_t> position_;  ///< of a column in its tile's footprint
  std::vector<std::int64_t> last_tile_;  ///< tile a column is in, or −1 − the row that probed it
};

}  // namespace

TileView TileFormat::view() const {
  return {tiles.data(), footprint.data(), rows.data(),
          local.data(), values.data(),    static_cast<std::int64_t>(tiles.size())};
}

TileFormat build_tiles(const CsrView& csr, const TileLimits& limits) {
  if (csr.index_type == DType::u16) return Builder<std::uint16_t>(csr, limits).build();
  return Builder<std::uint32_t>(csr, limits).build();
}

}  // namespace spdnn::cuda
