// Shares in proportion, and groups of ranks by their shares.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "spdnn/error.hpp"
#include "spdnn/plan.hpp"

namespace spdnn {

std::vector<Range> split_in_proportion(std::int64_t count, const std::vector<double>& weights,
                                       std::int64_t grain) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const bool usable = std::all_of(weights.begin(), weights.end(),
                                  [](double w) { return std::isfinite(w) && w >= 0.0; });
  if (!usable || !(total > 0.0) || grain < 1 || count < 0) {
    throw InputError("/split: shares must be finite and not negative, and not all 0");
  }
  const std::int64_t grains = (count + grain - 1) / grain;
  std::vector<std::int64_t> pieces(weights.size());
  std::vector<std::pair<double, std::size_t>> remainders;
  std::int64_t given = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double ideal = static_cast<double>(grains) * weights[i] / total;
    pieces[i] = std::min(static_cast<std::int64_t>(ideal), grains - given);
    given += pieces[i];
    if (weights[i] > 0.0) remainders.emplace_back(static_cast<double>(pieces[i]) - ideal, i);
  }
  std::sort(remainders.begin(), remainders.end());
  for (std::size_t i = 0; given < grains; ++i, ++given) {
    ++pieces[remainders[i % remainders.size()].second];
  }
  std::vector<Range> ranges;
  std::int64_t begin = 0;
  for (const std::int64_t piece : pieces) {
    const std::int64_t end = std::min(count, begin + piece * grain);
    ranges.push_back({begin, end});
    begin = end;
  }
  return ranges;
}

GridShares share_grid(const std::vector<double>& shares, std::int64_t rows) {
  std::vector<std::size_t> order;
  for (std::size_t rank = 0; rank < shares.size(); ++rank) {
    if (shares[rank] > 0.0) order.push_back(rank);
  }
  const std::int64_t ranks = std::ssize(order);
  if (rows < 1 || ranks == 0 || ranks % rows != 0) {
    throw InputError(fmt::format(
        "/model_ranks: {} devices with a share are no whole number of groups of {}; give "
        "as many a share above 0 (/split), or let another number share the rows",
        ranks, rows));
  }
  GridShares grid;
  grid.places.assign(shares.size(), -1);
  grid.images.assign(static_cast<std::size_t>(ranks / rows), 0.0);
  grid.rows.assign(static_cast<std::size_t>(rows), 0.0);
  const bool alike = std::all_of(order.begin(), order.end(),
                                 [&](std::size_t r) { return shares[r] == shares[order[0]]; });
  // Ranks next to each other are often on one host, where rows are exchanged soonest.
  const bool in_turn = alike || rows == 1 || rows == ranks;
  if (!in_turn) {
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return shares[a] > shares[b]; });
  }
  const std::int64_t groups = ranks / rows;
  for (std::int64_t i = 0; i < ranks; ++i) {
    const std::int64_t group = in_turn ? i / rows : i % groups;
    const std::int64_t number = in_turn ? i % rows : i / groups;
    const std::size_t rank = order[i];
    grid.places[rank] = group * rows + number;
    grid.images[group] += shares[rank];
    grid.rows[number] += shares[rank];
  }
  return grid;
}

}  // namespace spdnn
