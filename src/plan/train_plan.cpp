// The layouts of a training step, each strategy's best and the best of all.
#include "spdnn/train_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "share_rows.hpp"
#include "spdnn/error.hpp"

namespace spdnn {
namespace {

/// Times that rows and images of a grid are shared anew, each for the other.
constexpr int kTurns = 4;
/// Moves of a grain are tried with so many groups at most, so many times each.
constexpr std::size_t kFewGroups = 4;
constexpr int kMoves = 8;

/// Devices, the fastest first: by a whole step, longer where memory holds but a part of one.
std::vector<std::size_t> by_speed(const TrainProblem& problem,
                                  std::span<const TrainDevice> devices) {
  std::vector<std::size_t> order(devices.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto seconds = [&](std::size_t d) {
    const double part = static_cast<double>(std::min(devices[d].images.most, problem.batch)) /
                        static_cast<double>(problem.batch);
    return part > 0.0 ? devices[d].images.at(problem.batch) / part
                      : std::numeric_limits<double>::infinity();
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return seconds(a) < seconds(b); });
  return order;
}

TrainLayout by_images(const TrainProblem& problem, std::span<const TrainDevice> devices) {
  std::vector<RankCost> costs;
  for (const TrainDevice& device : devices) costs.push_back(device.images);
  const SharePlan plan = choose_ranks(problem.batch, problem.grain, costs, [&](std::int64_t k) {
    return problem.sums.all_reduce(k, problem.parameter_bytes);
  });
  TrainLayout layout;
  for (std::size_t d = 0; d < devices.size(); ++d) {
    layout.places.push_back(plan.takes_part[d] ? std::ssize(layout.images) : -1);
    if (plan.takes_part[d]) layout.images.push_back(plan.shares[d]);
  }
  for (const std::int64_t units : problem.units) {
    layout.units.push_back(units == 0 && !layout.units.empty() ? layout.units.back()
                                                               : std::vector<std::int64_t>{units});
  }
  layout.work_s = plan.work_s;
  layout.communication_s = plan.communication_s;
  return layout;
}

/// Each group's images, as fast as its rows are shared; none where there is no room.
std::vector<std::int64_t> share_images(const TrainProblem& problem,
                                       std::span<const TrainDevice> devices,
                                       const std::vector<std::vector<std::int64_t>>& units,
                                       std::size_t groups) {
  if (groups == 1) return {problem.batch};
  const std::size_t rows = devices.size() / groups;
  std::vector<RankCost> costs;
  std::int64_t room = 0;
  for (std::size_t g = 0; g < groups; ++g) {
    const std::span<const TrainDevice> group = devices.subspan(g * rows, rows);
    RankCost& cost = costs.emplace_back();
    const std::int64_t all[] = {problem.batch};
    cost.curve = CostCurve({{problem.batch, rows_seconds(problem, group, units, all)}});
    for (const TrainDevice& device : group) cost.most = std::min(cost.most, device.images.most);
    room += std::min(cost.most, problem.batch) / problem.grain * problem.grain;
  }
  if (room < problem.batch) return {};
  return share_by_cost(problem.batch, problem.grain, costs);
}

/// Part of all units that the rank with most of them holds.
double largest_part(const std::vector<std::vector<std::int64_t>>& units) {
  std::vector<double> held(units.empty() ? 0 : units.front().size());
  double all = 0.0;
  for (const auto& layer : units) {
    for (std::size_t number = 0; number < held.size(); ++number) {
      held[number] += static_cast<double>(layer[number]);
      all += static_cast<double>(layer[number]);
    }
  }
  return all > 0.0 ? *std::max_element(held.begin(), held.end()) / all : 1.0;
}

/// Takes rows that suit the images, and the images, where that is sooner done than the layout.
bool improve(const TrainProblem& problem, std::span<const TrainDevice> devices,
             const std::vector<std::int64_t>& images, TrainLayout& layout) {
  std::vector<std::vector<std::int64_t>> units = share_rows(problem, devices, images);
  if (units.empty()) return false;
  const double work = rows_seconds(problem, devices, units, images);
  if (!layout.units.empty() && work >= layout.work_s) return false;
  layout.images = images;
  layout.units = std::move(units);
  layout.work_s = work;
  return true;
}

/// Rows and images for devices that have their places: shared in turn until neither gains, then a
/// grain of images is moved at a time. Returns whether there is room.
bool share(const TrainProblem& problem, std::span<const TrainDevice> devices, TrainLayout& layout) {
  const auto groups = static_cast<std::size_t>(std::ssize(devices) / layout.rows);
  std::vector<std::int64_t> images;
  for (const Range& range :
       split_in_proportion(problem.batch, std::vector<double>(groups, 1.0), problem.grain)) {
    images.push_back(range.size());
  }
  if (!improve(problem, devices, images, layout)) return false;
  for (int turn = 0; turn < kTurns && groups > 1; ++turn) {
    images = share_images(problem, devices, layout.units, groups);
    if (images.empty() || !improve(problem, devices, images, layout)) break;
  }
  if (groups > kFewGroups) return true;
  bool moved = true;
  for (int turn = 0; turn < kMoves && moved; ++turn) {
    moved = false;
    for (std::size_t from = 0; from < groups; ++from) {
      for (std::size_t to = 0; to < groups; ++to) {
        images = layout.images;
        if (from == to || images[from] < problem.grain) continue;
        images[from] -= problem.grain;
        images[to] += problem.grain;
        moved = improve(problem, devices, images, layout) || moved;
      }
    }
  }
  return true;
}

/// Rows, images and what they cost, with the splits that the problem gives.
bool complete(const TrainProblem& problem, std::span<const TrainDevice> devices,
              TrainLayout& layout) {
  if (!share(problem, devices, layout)) return false;
  const std::int64_t groups = std::ssize(devices) / layout.rows;
  layout.splits = problem.splits;
  layout.communication_s =
      problem.sums.all_reduce(groups, problem.parameter_bytes * largest_part(layout.units)) +
      exchange_seconds(problem, layout.rows,
                       *std::max_element(layout.images.begin(), layout.images.end()));
  return true;
}

/// The layout with the splits that are given, or those that are found to be soonest done: layers
/// whose sums take fewer bytes than their inputs are split by inputs where that gains.
std::optional<TrainLayout> with_splits(const TrainProblem& problem,
                                       std::span<const TrainDevice> devices,
                                       const TrainLayout& places) {
  TrainLayout best = places;
  if (!problem.splits.empty()) {
    if (!complete(problem, devices, best)) return std::nullopt;
    return best;
  }
  TrainProblem tried = problem;
  tried.splits.assign(problem.units.size(), LayerSplit::outputs);
  if (!complete(tried, devices, best)) return std::nullopt;
  const std::vector<LayerSplit> fewest = splits_by_bytes(problem);
  for (std::size_t l = 0; l < fewest.size(); ++l) {
    if (fewest[l] == LayerSplit::outputs) continue;
    tried.splits = best.splits;
    tried.splits[l] = LayerSplit::inputs;
    TrainLayout layout = places;
    if (complete(tried, devices, layout) && layout.seconds() < best.seconds()) {
      best = std::move(layout);
    }
  }
  return best;
}

/// The devices of `order`, the fastest first, in groups of `rows`: those that are next to each
/// other in speed have the same number in their groups.
std::optional<TrainLayout> in_groups(const TrainProblem& problem,
                                     std::span<const TrainDevice> devices,
                                     std::span<const std::size_t> order, std::int64_t rows) {
  const std::int64_t groups = std::ssize(order) / rows;
  TrainLayout layout;
  layout.strategy = groups == 1 ? Strategy::model : Strategy::grid;
  layout.rows = rows;
  layout.places.assign(devices.size(), -1);
  std::vector<TrainDevice> by_place(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto rank = static_cast<std::int64_t>(i);
    layout.places[order[i]] = rank % groups * rows + rank / groups;
    by_place[layout.places[order[i]]] = devices[order[i]];
  }
  return with_splits(problem, by_place, layout);
}

}  // namespace

TrainLayout lay_out(const TrainProblem& problem, std::span<const TrainDevice> devices,
                    Strategy strategy, std::int64_t rows) {
  const std::int64_t count = std::ssize(devices);
  if (strategy == Strategy::data) return by_images(problem, devices);
  if (rows > 0 && count % rows != 0) {
    throw InputError(fmt::format("{} devices are no whole number of groups of {}", count, rows));
  }
  std::optional<TrainLayout> best;
  const auto consider = [&](const std::optional<TrainLayout>& layout) {
    if (layout && (!best || layout->seconds() < best->seconds())) best = layout;
  };
  const std::vector<std::size_t> order = by_speed(problem, devices);
  if (strategy != Strategy::grid) {
    for (std::int64_t k = strategy == Strategy::automatic ? 2 : 1; k <= count; ++k) {
      consider(in_groups(problem, devices, std::span(order).first(static_cast<std::size_t>(k)), k));
    }
  }
  if (strategy != Strategy::model) {
    for (std::int64_t k = 2; k < count; ++k) {
      if (count % k == 0 && (rows == 0 || k == rows)) {
        consider(in_groups(problem, devices, order, k));
      }
    }
  }
  if (strategy == Strategy::automatic) {
    const TrainLayout data = by_images(problem, devices);
    if (!best || best->seconds() >= data.seconds()) return data;
  }
  if (!best) {
    throw InputError(
        fmt::format("/memory_limit: no layout of the rows on {} devices has room for a batch of {} "
                    "images; raise memory_limit, use strategy 'data', or a smaller batch",
                    count, problem.batch));
  }
  return *best;
}

RowBalancer::RowBalancer(TrainProblem problem, std::vector<TrainDevice> devices,
                         const TrainLayout& layout, const BalanceRule& rule)
    : problem_(std::move(problem)),
      devices_(std::move(devices)),
      images_(layout.images),
      units_(layout.units),
      times_(devices_.size(), rule) {
  problem_.splits = layout.splits;
}

double RowBalancer::predicted() const { return rows_seconds(problem_, devices_, units_, images_); }

bool RowBalancer::observe(std::span<const std::int64_t> images, std::span<const double> seconds) {
  const std::size_t rows = devices_.size() / images.size();
  for (std::size_t d = 0; d < devices_.size(); ++d) {
    double expected = 0.0;
    for (std::size_t l = 0; l < units_.size(); ++l) {
      expected += phase_seconds(problem_, devices_[d], l, units_[l][d % rows]);
    }
    times_.add(d, seconds[d], expected * static_cast<double>(images[d / rows]));
  }
  return change_by(times_.rule().few) || change_by(times_.rule().many);
}

bool RowBalancer::change_by(int steps) {
  const std::optional<RecentTimes::Found> found = times_.last(steps);
  if (!found) return false;
  std::vector<TrainDevice> devices = devices_;
  for (std::size_t d = 0; d < devices.size(); ++d) {
    devices[d].images.factor = found->says(d, devices_[d].images.factor);
  }
  std::vector<std::vector<std::int64_t>> better = share_rows(problem_, devices, images_);
  if (better.empty() ||
      rows_seconds(problem_, devices, better, images_) >
          (1.0 - found->worth) * rows_seconds(problem_, devices, units_, images_)) {
    return false;
  }
  for (std::size_t d = 0; d < devices.size(); ++d) {
    devices[d].images.factor = found->takes(d, devices_[d].images.factor);
  }
  devices_ = std::move(devices);
  units_ = share_rows(problem_, devices_, images_);
  times_.clear();
  return true;
}

}  // namespace spdnn
