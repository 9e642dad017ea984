// Shares with which unlike ranks finish together, and how they follow the times that steps take.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn {

/// Seconds that a rank takes for so many items (images of a step, rows of a layer): measured at a
/// few counts, linear between them and beyond the last. Never falls as the count grows.
class CostCurve {
 public:
  struct Point {
    std::int64_t count = 0;
    double seconds = 0.0;
  };
  CostCurve() = default;
  /// Points in any order, at least one of a count above 0. What noise made fall is levelled.
  /// Without a point at 0 items, none of them cost nothing.
  explicit CostCurve(std::vector<Point> points);
  [[nodiscard]] double at(std::int64_t count) const;
  /// The most items that take at most so long; −1 where even none take longer.
  [[nodiscard]] std::int64_t within(double seconds) const;
  [[nodiscard]] const std::vector<Point>& points() const noexcept { return points_; }

 private:
  std::vector<Point> points_;  ///< from count 0 on, counts ascending
};

/// What shares cost one rank.
struct RankCost {
  CostCurve curve;
  double factor = 1.0;  ///< times the curve: how much slower the rank is than when it was measured
  std::int64_t most = std::numeric_limits<std::int64_t>::max();  ///< items that fit its memory
  [[nodiscard]] double at(std::int64_t count) const { return factor * curve.at(count); }
};

/// Shares of `count` items for which the last rank is done as early as can be: the least T for
/// which all that the ranks do within T suffices. Shares are multiples of `grain`, but for one of
/// them where `count` is none; a rank whose first grain would take longer than all others need gets
/// 0. Throws `InputError` where the ranks together have no room for `count` items.
[[nodiscard]] std::vector<std::int64_t> share_by_cost(std::int64_t count, std::int64_t grain,
                                                      std::span<const RankCost> ranks);

/// Seconds until the last rank is done with its share.
[[nodiscard]] double slowest(std::span<const RankCost> ranks, std::span<const std::int64_t> shares);

/// Seconds that a collective takes `ranks` ranks together.
struct CollectiveCost {
  double latency_s = 0.0;         ///< of one message
  double seconds_per_byte = 0.0;  ///< of the slowest link
  /// Rounds of messages double in reach, and every byte passes a link about twice: reduced to the
  /// rank that owns it, and back to all (Thakur, Rabenseifner and Gropp, IJHPCA 2005).
  [[nodiscard]] double all_reduce(std::int64_t ranks, double bytes) const;
  /// Each rank receives what the others have.
  [[nodiscard]] double all_gather(std::int64_t ranks, double bytes) const;
};

/// Shares of `count` items by the ranks that are worth their communication.
struct SharePlan {
  std::vector<std::int64_t> shares;  ///< 0 for a rank that is left out
  std::vector<bool> takes_part;
  double work_s = 0.0, communication_s = 0.0;
  [[nodiscard]] double seconds() const { return work_s + communication_s; }
};
/// The best of all sets of ranks, where `communication(k)` is what k of them cost and does not fall
/// with k. Exact: for each time, the ranks that do most within it are the ones to take.
[[nodiscard]] SharePlan choose_ranks(std::int64_t count, std::int64_t grain,
                                     std::span<const RankCost> ranks,
                                     const std::function<double(std::int64_t)>& communication);

/// When shares are changed: when others would save so much of a step that neither single slow steps
/// nor the spread of all of them explains it. A large change is followed soon and whole. A small
/// one may be a program that shares a device's core for some steps and is gone when shares have
/// followed it: more steps count, and what was known before them as much as they do.
struct BalanceRule {
  int few = 7, many = 20;   ///< steps that show a large change, and a small one
  double worth_soon = 0.2;  ///< least part of a step that other shares must save, by the few
  double worth = 0.03;      ///< and by the many
  /// Beside it, times the median deviation of a rank's times ÷ √steps.
  double noise = 2.5;
};

/// What ranks lately took, each step as a multiple of what was expected of it.
class RecentTimes {
 public:
  RecentTimes(std::size_t ranks, const BalanceRule& rule) : rule_(rule), ratios_(ranks) {}
  /// A step of a rank; one of which nothing was expected tells nothing.
  void add(std::size_t rank, double seconds, double expected);
  void clear();

  /// How slow each rank is, by its last steps: by the median of a few, by the mean of the middle
  /// half of many.
  struct Found {
    std::vector<double> factors;  ///< by rank; 0 of one that told nothing
    double worth = 0.0;           ///< part of a step that a change must save to be one
    bool soon = false;            ///< by the few
    /// What these steps say of a rank that was known to be so slow, and what it is to be taken for
    /// where they are worth a change.
    [[nodiscard]] double says(std::size_t rank, double known) const;
    [[nodiscard]] double takes(std::size_t rank, double known) const;
  };
  /// By so many steps; nothing before they are there.
  [[nodiscard]] std::optional<Found> last(int steps) const;
  [[nodiscard]] const BalanceRule& rule() const noexcept { return rule_; }

 private:
  BalanceRule rule_;
  std::vector<std::deque<double>> ratios_;  ///< by rank, of the last steps
};

/// Shares of every step that follow measured times. Pure: ranks that observe the same times come to
/// the same shares, with nobody to tell them.
class Balancer {
 public:
  /// Starts with the best shares for `ranks` as they were measured.
  Balancer(std::int64_t count, std::int64_t grain, std::vector<RankCost> ranks,
           const BalanceRule& rule = {});
  [[nodiscard]] const std::vector<std::int64_t>& shares() const noexcept { return shares_; }
  /// Seconds of a step with these shares, as far as is known.
  [[nodiscard]] double predicted() const { return slowest(ranks_, shares_); }
  /// A step in which rank r took `seconds[r]` for `items[r]`. Returns whether shares changed.
  bool observe(std::span<const std::int64_t> items, std::span<const double> seconds);
  /// How much slower each rank is found to be than it was measured.
  [[nodiscard]] std::vector<double> factors() const;

 private:
  bool change_by(int steps);

  std::int64_t count_, grain_;
  std::vector<RankCost> ranks_;
  RecentTimes times_;
  std::vector<std::int64_t> shares_;
};

}  // namespace spdnn
