// Shares by cost: how much each rank can do within a time, and the least time that suffices.
#include "spdnn/balance.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "spdnn/error.hpp"

namespace spdnn {
namespace {

/// Halvings of the interval in which the least time lies: past the precision of any measurement.
constexpr int kHalvings = 40;
/// Relative width at which the search for a set of ranks ends.
constexpr double kPrecision = 1e-4;
/// Of the measurement at a curve's end, what a further item costs at least, so that no rank is
/// thought to do any number of them in no time.
constexpr double kLeastSlope = 1e-6;

std::int64_t grains_within(const RankCost& rank, std::int64_t grain, std::int64_t grains,
                           double seconds) {
  const std::int64_t items = std::min(rank.curve.within(seconds / rank.factor), rank.most);
  return std::clamp<std::int64_t>(items / grain, 0, grains);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Of the values without the least and the greatest quarter.
double mean_of_middle(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::ptrdiff_t quarter = (std::ssize(values) + 3) / 4;
  if (2 * quarter >= std::ssize(values)) return values[values.size() / 2];
  const double sum = std::accumulate(values.begin() + quarter, values.end() - quarter, 0.0);
  return sum / static_cast<double>(std::ssize(values) - 2 * quarter);
}

}  // namespace

CostCurve::CostCurve(std::vector<Point> points) : points_(std::move(points)) {
  std::sort(points_.begin(), points_.end(),
            [](const Point& a, const Point& b) { return a.count < b.count; });
  if (points_.empty() || points_.back().count <= 0) {
    throw InputError("a cost curve needs a measurement of at least one item");
  }
  if (points_.front().count > 0) points_.insert(points_.begin(), Point{});
  for (std::size_t i = 1; i < points_.size(); ++i) {
    points_[i].seconds = std::max(points_[i].seconds, points_[i - 1].seconds);
  }
}

double CostCurve::at(std::int64_t count) const {
  if (points_.empty()) return 0.0;
  std::size_t i = 1;
  while (i + 1 < points_.size() && points_[i].count < count) ++i;
  const Point& a = points_[i - 1];
  const Point& b = points_[i];
  const double slope = (b.seconds - a.seconds) / static_cast<double>(b.count - a.count);
  if (count <= b.count) return a.seconds + slope * static_cast<double>(count - a.count);
  const double least = kLeastSlope * b.seconds / static_cast<double>(b.count);
  return b.seconds + std::max(slope, least) * static_cast<double>(count - b.count);
}

std::int64_t CostCurve::within(double seconds) const {
  if (points_.empty()) return std::numeric_limits<std::int64_t>::max();
  if (seconds < points_.front().seconds) return -1;
  std::size_t i = 1;
  while (i + 1 < points_.size() && points_[i].seconds <= seconds) ++i;
  const Point& a = points_[i - 1];
  const Point& b = points_[i];
  const double span = static_cast<double>(b.count - a.count);
  double slope = (b.seconds - a.seconds) / span;
  if (seconds >= b.seconds)
    slope = std::max(slope, kLeastSlope * b.seconds / static_cast<double>(b.count));
  constexpr double kMany = 1e15;
  const double more = slope > 0.0 ? std::min((seconds - a.seconds) / slope, kMany) : kMany;
  std::int64_t count = a.count + static_cast<std::int64_t>(more);
  // Rounding may have gone either way.
  while (count > a.count && at(count) > seconds) --count;
  while (static_cast<double>(count) < kMany && at(count + 1) <= seconds) ++count;
  return count;
}

double slowest(std::span<const RankCost> ranks, std::span<const std::int64_t> shares) {
  double seconds = 0.0;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    seconds = std::max(seconds, ranks[r].at(shares[r]));
  }
  return seconds;
}

std::vector<std::int64_t> share_by_cost(std::int64_t count, std::int64_t grain,
                                        std::span<const RankCost> ranks) {
  const std::int64_t grains = (count + grain - 1) / grain;
  const auto done_within = [&](double seconds) {
    std::int64_t done = 0;
    for (const RankCost& rank : ranks) done += grains_within(rank, grain, grains, seconds);
    return done;
  };
  constexpr double kForever = std::numeric_limits<double>::infinity();
  double high = 0.0;
  for (const RankCost& rank : ranks) {
    high = std::max(high, rank.at(std::min(grains * grain, rank.most)));
  }
  high = std::nextafter(high, kForever);
  if (done_within(high) < grains) {
    std::int64_t room = 0;
    for (const RankCost& rank : ranks) room += std::min(rank.most, count) / grain * grain;
    throw InputError(
        fmt::format("/memory_limit: {} items are to be shared, but there is room for {} "
                    "on the {} devices together; raise memory_limit or add devices",
                    count, room, ranks.size()));
  }
  double low = 0.0;
  for (int i = 0; i < kHalvings && low < high; ++i) {
    const double middle = low + (high - low) / 2.0;
    (done_within(middle) >= grains ? high : low) = middle;
  }
  std::vector<std::int64_t> shares(ranks.size());
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    shares[r] = grains_within(ranks[r], grain, grains, high);
  }
  // What is too much is taken where it saves most: from whoever would be done last.
  std::int64_t spare = std::accumulate(shares.begin(), shares.end(), std::int64_t{0}) - grains;
  for (; spare > 0; --spare) {
    std::size_t last = ranks.size();
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      if (shares[r] > 0 && (last == ranks.size() || ranks[r].at(shares[r] * grain) >=
                                                        ranks[last].at(shares[last] * grain))) {
        last = r;
      }
    }
    --shares[last];
  }
  for (std::int64_t& share : shares) share *= grain;
  for (std::size_t r = shares.size(); r-- > 0;) {
    if (shares[r] == 0) continue;
    shares[r] -= grains * grain - count;  // the last piece is the one that is not whole
    break;
  }
  return shares;
}

double CollectiveCost::all_reduce(std::int64_t ranks, double bytes) const {
  if (ranks < 2) return 0.0;
  const auto k = static_cast<double>(ranks);
  return 2.0 * (latency_s * std::ceil(std::log2(k)) + (k - 1.0) / k * bytes * seconds_per_byte);
}

double CollectiveCost::all_gather(std::int64_t ranks, double bytes) const {
  return all_reduce(ranks, bytes) / 2.0;
}

namespace {

/// The fewest ranks, of those that do most within `seconds` less their communication, that suffice;
/// none where no number of them does.
std::vector<std::size_t> team_within(double seconds, std::int64_t grain, std::int64_t grains,
                                     std::span<const RankCost> ranks,
                                     std::span<const double> communication) {
  std::vector<std::int64_t> done(ranks.size());
  std::vector<std::size_t> order(ranks.size());
  for (std::size_t k = 1; k <= ranks.size(); ++k) {
    const double left = seconds - communication[k - 1];
    if (left < 0.0) break;
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      done[r] = grains_within(ranks[r], grain, grains, left);
    }
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k), order.end(),
                      [&](std::size_t a, std::size_t b) {
                        return done[a] != done[b] ? done[a] > done[b] : a < b;
                      });
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < k; ++i) sum += done[order[i]];
    if (sum >= grains) return {order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k)};
  }
  return {};
}

}  // namespace

SharePlan choose_ranks(std::int64_t count, std::int64_t grain, std::span<const RankCost> ranks,
                       const std::function<double(std::int64_t)>& communication) {
  const std::int64_t grains = (count + grain - 1) / grain;
  std::vector<double> costs;
  for (std::size_t k = 1; k <= ranks.size(); ++k) {
    costs.push_back(communication(static_cast<std::int64_t>(k)));
  }
  // All ranks together always suffice, or there is no room at all, which this says.
  const std::vector<std::int64_t> all = share_by_cost(count, grain, ranks);
  double high = slowest(ranks, all) + costs.back();
  double low = 0.0;
  std::vector<std::size_t> team(ranks.size());
  std::iota(team.begin(), team.end(), std::size_t{0});
  while (high - low > kPrecision * high) {
    const double middle = low + (high - low) / 2.0;
    std::vector<std::size_t> found = team_within(middle, grain, grains, ranks, costs);
    if (found.empty()) {
      low = middle;
    } else {
      high = middle;
      team = std::move(found);
    }
  }
  std::sort(team.begin(), team.end());
  std::vector<RankCost> members;
  for (const std::size_t r : team) members.push_back(ranks[r]);
  const std::vector<std::int64_t> shares = share_by_cost(count, grain, members);
  SharePlan plan;
  plan.shares.assign(ranks.size(), 0);
  plan.takes_part.assign(ranks.size(), false);
  std::int64_t used = 0;
  for (std::size_t i = 0; i < team.size(); ++i) {
    plan.shares[team[i]] = shares[i];
    plan.takes_part[team[i]] = shares[i] > 0;
    used += shares[i] > 0 ? 1 : 0;
  }
  plan.work_s = slowest(members, shares);
  plan.communication_s = costs[static_cast<std::size_t>(std::max<std::int64_t>(used, 1)) - 1];
  return plan;
}

void RecentTimes::add(std::size_t rank, double seconds, double expected) {
  if (expected <= 0.0) return;
  std::deque<double>& ratios = ratios_[rank];
  ratios.push_back(seconds / expected);
  if (std::ssize(ratios) > rule_.many) ratios.pop_front();
}

void RecentTimes::clear() {
  for (auto& ratios : ratios_) ratios.clear();
}

double RecentTimes::Found::says(std::size_t rank, double known) const {
  return factors[rank] > 0.0 ? factors[rank] : known;
}

double RecentTimes::Found::takes(std::size_t rank, double known) const {
  return soon ? says(rank, known) : std::sqrt(known * says(rank, known));
}

std::optional<RecentTimes::Found> RecentTimes::last(int steps) const {
  Found found;
  found.soon = steps < rule_.many;
  double noise = 0.0;
  for (const std::deque<double>& ratios : ratios_) {
    found.factors.push_back(0.0);
    if (ratios.empty()) continue;
    if (std::ssize(ratios) < steps) return std::nullopt;
    std::vector<double> last(ratios.end() - steps, ratios.end());
    const double middle = std::max(found.soon ? median(last) : mean_of_middle(last), 1e-9);
    found.factors.back() = middle;
    for (double& ratio : last) ratio = std::abs(ratio - middle);
    noise = std::max(noise, median(std::move(last)) / middle);
  }
  found.worth = (found.soon ? rule_.worth_soon : rule_.worth) +
                rule_.noise * noise / std::sqrt(static_cast<double>(steps));
  return found;
}

Balancer::Balancer(std::int64_t count, std::int64_t grain, std::vector<RankCost> ranks,
                   const BalanceRule& rule)
    : count_(count),
      grain_(grain),
      ranks_(std::move(ranks)),
      times_(ranks_.size(), rule),
      shares_(share_by_cost(count, grain, ranks_)) {}

std::vector<double> Balancer::factors() const {
  std::vector<double> factors;
  for (const RankCost& rank : ranks_) factors.push_back(rank.factor);
  return factors;
}

bool Balancer::observe(std::span<const std::int64_t> items, std::span<const double> seconds) {
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    times_.add(r, seconds[r], ranks_[r].curve.at(items[r]));
  }
  return change_by(times_.rule().few) || change_by(times_.rule().many);
}

/// Changes shares where the last so many steps of all ranks that work say that it is worth it.
bool Balancer::change_by(int steps) {
  const std::optional<RecentTimes::Found> found = times_.last(steps);
  if (!found) return false;
  std::vector<RankCost> ranks = ranks_;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    ranks[r].factor = found->says(r, ranks_[r].factor);
  }
  const double best = slowest(ranks, share_by_cost(count_, grain_, ranks));
  if (best > (1.0 - found->worth) * slowest(ranks, shares_)) return false;
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    ranks_[r].factor = found->takes(r, ranks_[r].factor);
  }
  shares_ = share_by_cost(count_, grain_, ranks_);
  times_.clear();
  return true;
}

}  // namespace spdnn
