// Counting who reads what of whom.
#include "crossing_words.hpp"

#include <algorithm>

#include "shard.hpp"

namespace spdnn::train {
namespace {

using Columns = std::vector<std::uint32_t>;

/// Calls `use(column)` for each connection of a row.
template <class Use>
void for_each_column(const Pattern& pattern, std::uint32_t row, const Use& use) {
  if (pattern.is_dense()) {
    for (std::int64_t col = 0; col < pattern.cols(); ++col) use(static_cast<std::uint32_t>(col));
    return;
  }
  for (std::int64_t k = pattern.row_offsets()[row]; k < pattern.row_offsets()[row + 1]; ++k) {
    use(pattern.col_indices()[k]);
  }
}

/// Items (channels, or single features, of so many columns each) that ranks read of others.
std::int64_t gathered(const Pattern& pattern, const LayerPartition& units, const Columns& owners,
                      std::int64_t columns) {
  std::int64_t count = 0;
  std::vector<int> read_by(owners.size() / static_cast<std::size_t>(columns), -1);
  for (int rank = 0; rank + 1 < std::ssize(units.offsets); ++rank) {
    std::span<const std::uint32_t> rows = part_of(units, rank);
    if (pattern.is_dense()) rows = rows.first(std::min<std::size_t>(rows.size(), 1));  // all alike
    for (const std::uint32_t row : rows) {
      for_each_column(pattern, row, [&](std::uint32_t column) {
        int& last = read_by[column / columns];
        if (last == rank) return;
        last = rank;
        count += static_cast<int>(owners[column]) != rank ? 1 : 0;
      });
    }
  }
  return count;
}

/// Parts of sums that ranks have of units of others.
std::int64_t summed(const Pattern& pattern, const LayerPartition& units, const Columns& owners) {
  const Columns unit_owners = owners_of(units);
  std::int64_t count = 0;
  std::vector<std::int64_t> part_of_unit(units.offsets.size() - 1, -1);
  std::vector<std::uint32_t> ranks;  // of a dense layer, all rows have parts of the same ones
  for (std::uint32_t unit = 0; unit < unit_owners.size(); ++unit) {
    if (unit == 0 || !pattern.is_dense()) {
      ranks.clear();
      for_each_column(pattern, unit, [&](std::uint32_t column) {
        std::int64_t& last = part_of_unit[owners[column]];
        if (last == unit) return;
        last = unit;
        ranks.push_back(owners[column]);
      });
    }
    count += std::ssize(ranks) - std::count(ranks.begin(), ranks.end(), unit_owners[unit]);
  }
  return count;
}

}  // namespace

std::int64_t crossing_words(const std::vector<TrainLayer>& layers,
                            const std::vector<LayerPartition>& partition, std::size_t layer,
                            LayerSplit split) {
  const TrainLayer& of = layers[layer];
  if (layer == 0 || std::holds_alternative<PoolForm>(of.form)) return 0;
  const Columns owners = column_owners(layers, partition, layer);
  if (split == LayerSplit::inputs) {
    return summed(of.pattern, partition[layer], owners) * of.features_per_unit();
  }
  const auto* conv = std::get_if<ConvForm>(&of.form);
  const std::int64_t columns = conv != nullptr ? conv->window.taps() : 1;
  const std::int64_t features = conv != nullptr ? conv->window.in_pixels() : 1;
  return gathered(of.pattern, partition[layer], owners, columns) * features;
}

}  // namespace spdnn::train
