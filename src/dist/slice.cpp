// Cutting a rank's rows out of a layer: which inputs they read, and everything renumbered.
#include <algorithm>
#include <numeric>

#include "spdnn/halo.hpp"

namespace spdnn {
namespace {

std::vector<std::uint32_t> all_below(std::int64_t count) {
  std::vector<std::uint32_t> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0U);
  return all;
}

/// Items that the rows read, ascending.
std::vector<std::uint32_t> items_read(const RowPattern& rows, const InputItems& items) {
  if (rows.is_dense()) return all_below(rows.rows == 0 ? 0 : items.count);
  std::vector<bool> read(static_cast<std::size_t>(items.count));
  for (std::int64_t k = rows.offsets[0]; k < rows.offsets[rows.rows]; ++k) {
    read[rows.columns[k] / items.columns] = true;
  }
  std::vector<std::uint32_t> list;
  for (std::size_t i = 0; i < read.size(); ++i) {
    if (read[i]) list.push_back(static_cast<std::uint32_t>(i));
  }
  return list;
}

/// Puts the rows first that read nothing but what `is_own` says, the others behind them, each in
/// order.
void order_rows(const RowPattern& rows, const InputItems& items, const std::vector<bool>& is_own,
                RowSlice& slice) {
  const bool all_own = std::find(is_own.begin(), is_own.end(), false) == is_own.end();
  std::vector<bool> inside(static_cast<std::size_t>(rows.rows), all_own);
  for (std::int64_t row = 0; row < rows.rows && !rows.is_dense() && !all_own; ++row) {
    inside[row] =
        std::all_of(rows.columns + rows.offsets[row], rows.columns + rows.offsets[row + 1],
                    [&](std::uint32_t col) { return is_own[col / items.columns]; });
  }
  slice.order.resize(inside.size());
  std::iota(slice.order.begin(), slice.order.end(), std::size_t{0});
  const auto middle = std::stable_partition(slice.order.begin(), slice.order.end(),
                                            [&](std::size_t row) { return inside[row]; });
  slice.interior = std::distance(slice.order.begin(), middle);
}

/// The rows in the slice's order, their columns numbered among the items read.
void renumber(const RowPattern& rows, const InputItems& items, RowSlice& slice) {
  slice.cols = std::ssize(slice.read) * items.columns;
  if (rows.is_dense()) return;
  std::vector<std::uint32_t> place(static_cast<std::size_t>(items.count));
  for (std::size_t i = 0; i < slice.read.size(); ++i) {
    place[slice.read[i]] = static_cast<std::uint32_t>(i);
  }
  const auto per_item = static_cast<std::uint32_t>(items.columns);
  slice.offsets = {0};
  slice.columns.reserve(static_cast<std::size_t>(rows.offsets[rows.rows] - rows.offsets[0]));
  for (const std::size_t row : slice.order) {
    for (std::int64_t k = rows.offsets[row]; k < rows.offsets[row + 1]; ++k) {
      const std::uint32_t col = rows.columns[k];
      slice.columns.push_back(place[col / per_item] * per_item + col % per_item);
    }
    slice.offsets.push_back(std::ssize(slice.columns));
  }
}

}  // namespace

std::vector<std::uint32_t> features_of(const std::vector<std::uint32_t>& units,
                                       std::int64_t features_per_unit) {
  std::vector<std::uint32_t> features;
  features.reserve(units.size() * static_cast<std::size_t>(features_per_unit));
  for (const std::uint32_t unit : units) {
    for (std::int64_t i = 0; i < features_per_unit; ++i) {
      features.push_back(static_cast<std::uint32_t>(unit * features_per_unit + i));
    }
  }
  return features;
}

std::span<const std::uint32_t> part_of(const LayerPartition& partition, int part) {
  return std::span(partition.rows)
      .subspan(static_cast<std::size_t>(partition.offsets[part]),
               static_cast<std::size_t>(partition.offsets[part + 1] - partition.offsets[part]));
}

FeatureOwners feature_owners(const LayerPartition& units, std::int64_t features_per_unit,
                             const std::vector<std::uint32_t>& own_units) {
  FeatureOwners features;
  for (const std::uint32_t owner : owners_of(units)) {
    features.owners.insert(features.owners.end(), static_cast<std::size_t>(features_per_unit),
                           owner);
  }
  features.own = features_of(own_units, features_per_unit);
  return features;
}

RowSlice slice_rows(int rank, const RowPattern& rows, const InputItems& items,
                    const FeatureOwners* before, bool keep_order) {
  RowSlice slice;
  std::vector<bool> is_own(static_cast<std::size_t>(items.count), true);
  if (before == nullptr) {
    slice.read = all_below(items.count);
  } else {
    slice.read = items_read(rows, items);
    for (std::size_t i = 0; i < is_own.size(); ++i) {
      is_own[i] = static_cast<int>(before->owners[i * items.features]) == rank;
    }
  }
  order_rows(rows, items, is_own, slice);
  if (keep_order && slice.interior < rows.rows) {
    std::iota(slice.order.begin(), slice.order.end(), std::size_t{0});
    slice.interior = 0;
  }
  renumber(rows, items, slice);
  return slice;
}

}  // namespace spdnn
