// Sharing the units of layers so that ranks finish each phase together.
#include "share_rows.hpp"

#include <algorithm>
#include <cmath>

namespace spdnn {
namespace {

bool by_inputs(const TrainProblem& problem, std::size_t layer) {
  return !problem.splits.empty() && problem.splits[layer] == LayerSplit::inputs;
}

/// The layer with weights that reads what a layer puts out, where it is split by inputs; else the
/// number of layers.
std::size_t next_by_inputs(const TrainProblem& problem, std::size_t layer) {
  const std::size_t layers = problem.units.size();
  std::size_t next = layer + 1;
  while (next < layers && problem.units[next] == 0) ++next;
  return next < layers && by_inputs(problem, next) ? next : layers;
}

/// Whether owning units of a layer makes work before ranks meet again.
bool has_work(const TrainProblem& problem, std::size_t layer) {
  return !by_inputs(problem, layer) || next_by_inputs(problem, layer) < problem.units.size();
}

double at_part(const CostCurve& curve, double count) {
  const double whole = std::floor(count);
  const auto below = static_cast<std::int64_t>(whole);
  const double seconds = curve.at(below);
  return whole == count ? seconds : seconds + (count - whole) * (curve.at(below + 1) - seconds);
}

/// Counts at which the slope of `phase_seconds` may change.
std::vector<std::int64_t> phase_counts(const TrainProblem& problem, const TrainDevice& device,
                                       std::size_t layer) {
  std::vector<std::int64_t> counts;
  if (!by_inputs(problem, layer)) {
    for (const CostCurve::Point& point : device.rows[layer].points()) {
      counts.push_back(point.count);
    }
  }
  const std::size_t next = next_by_inputs(problem, layer);
  if (next == problem.units.size()) return counts;
  for (const CostCurve::Point& point : device.rows[next].points()) {
    const std::int64_t scaled = point.count * problem.units[layer] / problem.units[next];
    for (const std::int64_t count : {scaled, scaled + 1}) {
      if (count <= problem.units[layer]) counts.push_back(count);
    }
  }
  return counts;
}

/// `count` units shared as those of another layer are.
std::vector<std::int64_t> in_proportion(std::int64_t count,
                                        const std::vector<std::int64_t>& others) {
  std::vector<std::int64_t> shares;
  for (const Range& range : split_in_proportion(count, {others.begin(), others.end()})) {
    shares.push_back(range.size());
  }
  return shares;
}

/// What those take that hold the same rows of a layer, one device of each group: the slowest of
/// them. Memory that is too small for all rows is large enough for a part of them.
RankCost holders_cost(const TrainProblem& problem, std::span<const TrainDevice* const> devices,
                      std::span<const std::int64_t> images, std::size_t layer) {
  RankCost cost;
  std::vector<CostCurve::Point> points;
  for (std::size_t g = 0; g < devices.size(); ++g) {
    for (const std::int64_t count : phase_counts(problem, *devices[g], layer)) {
      points.push_back({count, 0.0});
    }
    if (devices[g]->images.most < images[g]) {
      cost.most = std::min(cost.most, problem.units[layer] * devices[g]->images.most / images[g]);
    }
  }
  std::sort(points.begin(), points.end(),
            [](const auto& a, const auto& b) { return a.count < b.count; });
  points.erase(std::unique(points.begin(), points.end(),
                           [](const auto& a, const auto& b) { return a.count == b.count; }),
               points.end());
  for (CostCurve::Point& point : points) {
    for (std::size_t g = 0; g < devices.size(); ++g) {
      point.seconds =
          std::max(point.seconds, static_cast<double>(images[g]) * devices[g]->images.factor *
                                      phase_seconds(problem, *devices[g], layer, point.count));
    }
  }
  cost.curve = CostCurve(std::move(points));
  return cost;
}

}  // namespace

double phase_seconds(const TrainProblem& problem, const TrainDevice& device, std::size_t layer,
                     std::int64_t count) {
  double seconds = by_inputs(problem, layer) ? 0.0 : device.rows[layer].at(count);
  const std::size_t next = next_by_inputs(problem, layer);
  if (next < problem.units.size()) {
    seconds += at_part(device.rows[next], static_cast<double>(count) *
                                              static_cast<double>(problem.units[next]) /
                                              static_cast<double>(problem.units[layer]));
  }
  return seconds;
}

double exchange_seconds(const TrainProblem& problem, std::int64_t ranks, std::int64_t images) {
  double seconds = 0.0;
  for (std::size_t l = 0; l < problem.halo_bytes.size(); ++l) {
    const bool sums = l < problem.units.size() && by_inputs(problem, l);
    const double bytes = sums ? problem.sum_bytes[l] : problem.halo_bytes[l];
    if (bytes <= 0.0) continue;
    seconds += 2.0 * problem.halos.all_gather(ranks, bytes * static_cast<double>(images));
  }
  return seconds;
}

std::vector<LayerSplit> splits_by_bytes(const TrainProblem& problem) {
  std::vector<LayerSplit> splits;
  for (std::size_t l = 0; l < problem.units.size(); ++l) {
    const double sums = problem.sum_bytes.empty() ? 0.0 : problem.sum_bytes[l];
    splits.push_back(sums > 0.0 && sums < problem.halo_bytes[l] ? LayerSplit::inputs
                                                                : LayerSplit::outputs);
  }
  return splits;
}

std::vector<std::vector<std::int64_t>> share_rows(const TrainProblem& problem,
                                                  std::span<const TrainDevice> devices,
                                                  std::span<const std::int64_t> images) {
  const std::size_t groups = images.size();
  const std::size_t rows = devices.size() / groups;
  std::vector<std::vector<std::int64_t>> units;
  for (std::size_t l = 0; l < problem.units.size(); ++l) {
    if (problem.units[l] == 0) {
      units.push_back(units.empty() ? std::vector<std::int64_t>(rows, 0) : units.back());
      continue;
    }
    if (!has_work(problem, l)) {
      units.push_back(in_proportion(problem.units[l], units.back()));
      continue;
    }
    std::vector<RankCost> costs;
    std::int64_t room = 0;
    for (std::size_t number = 0; number < rows; ++number) {
      std::vector<const TrainDevice*> holders;
      for (std::size_t g = 0; g < groups; ++g) holders.push_back(&devices[g * rows + number]);
      costs.push_back(holders_cost(problem, holders, images, l));
      room += std::min(costs.back().most, problem.units[l]);
    }
    if (room < problem.units[l]) return {};
    units.push_back(share_by_cost(problem.units[l], 1, costs));
  }
  return units;
}

double waiting_factor(std::span<const TrainDevice> devices) {
  const bool steady = std::all_of(devices.begin(), devices.end(),
                                  [](const TrainDevice& device) { return device.spread.empty(); });
  if (steady) return 1.0;
  struct Step {
    double time;
    std::size_t device;
  };
  std::vector<Step> steps;  // at each time a device has a chance more to be done by then
  for (std::size_t d = 0; d < devices.size(); ++d) {
    for (const double time : devices[d].spread) steps.push_back({time, d});
    if (devices[d].spread.empty()) steps.push_back({1.0, d});
  }
  std::sort(steps.begin(), steps.end(),
            [](const Step& a, const Step& b) { return a.time < b.time; });
  std::vector<double> passed(devices.size());
  std::size_t begun = 0;
  double chances = 1.0;  // the product of those of the devices that have begun
  double all_done = 0.0, mean = 0.0;
  for (const Step& step : steps) {
    double& own = passed[step.device];
    if (own == 0.0) {
      ++begun;
      chances /= static_cast<double>(std::max<std::size_t>(devices[step.device].spread.size(), 1));
    } else {
      chances *= (own + 1.0) / own;
    }
    own += 1.0;
    if (begun < devices.size()) continue;
    mean += step.time * (chances - all_done);
    all_done = chances;
  }
  return mean;
}

double rows_seconds(const TrainProblem& problem, std::span<const TrainDevice> devices,
                    const std::vector<std::vector<std::int64_t>>& units,
                    std::span<const std::int64_t> images) {
  const std::size_t rows = devices.size() / images.size();
  double slowest = 0.0;
  for (std::size_t g = 0; g < images.size(); ++g) {
    double seconds = 0.0;
    for (std::size_t l = 0; l < problem.units.size(); ++l) {
      double last = 0.0;
      for (std::size_t number = 0; number < rows; ++number) {
        const TrainDevice& device = devices[g * rows + number];
        last = std::max(last,
                        device.images.factor * phase_seconds(problem, device, l, units[l][number]));
      }
      seconds += last * static_cast<double>(images[g]);
    }
    if (rows > 1) seconds *= waiting_factor(devices.subspan(g * rows, rows));
    slowest = std::max(slowest, seconds);
  }
  return slowest;
}

}  // namespace spdnn
