// Pieces of work between meetings of all ranks, each by its rank's own clock.
#include "meeting_times.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "row_cost.hpp"
#include "spdnn/plan.hpp"
#include "step_cost.hpp"

namespace spdnn::train {
namespace {

/// Raised whenever what is measured changes enough that older times mislead.
constexpr int kVersion = 2;
constexpr int kWarmUps = 8;
constexpr std::int64_t kFewest = 32, kMost = 128;  ///< meetings
constexpr double kSeconds = 1.0;                   ///< that they take, about
/// Numbers that stand for a distribution.
constexpr std::size_t kParts = 8;

double work_of(const TrainLayer& layer) {
  return static_cast<double>(layer.pattern.nnz() * layer.features_per_unit());
}

const TrainLayer& layer_with_most_work(const std::vector<TrainLayer>& layers) {
  return *std::max_element(
      layers.begin(), layers.end(),
      [](const TrainLayer& a, const TrainLayer& b) { return work_of(a) < work_of(b); });
}

/// This rank's times, all ranks working at once.
std::vector<double> measure_times(const TrainSpec& spec, const TrainLayer& layer,
                                  Communicator& comm, Device& device) {
  const std::int64_t units = (layer.units() + comm.size() - 1) / comm.size();
  // What is between two meetings on the way back, but for the messages.
  SliceTrial trial(layer, units, trial_images(layer, spec.batch, device.info()),
                   kernels_for(device), spec.precision, device);
  const StepClock clock(device);
  std::vector<double> times;
  std::int64_t meetings = kWarmUps;
  double begun = 0.0;
  for (std::int64_t meeting = 0; meeting < meetings; ++meeting) {
    comm.barrier();
    if (meeting == 0) begun = now_seconds();
    const double start = clock.now();
    trial.backward();
    times.push_back(clock.now() - start);
    if (meeting + 1 != kWarmUps) continue;
    times.clear();
    const double each = std::max((now_seconds() - begun) / kWarmUps, 1e-9);
    meetings +=
        std::clamp(static_cast<std::int64_t>(std::min(kSeconds / each, 1e6)), kFewest, kMost);
    comm.all_reduce(&meetings, &meetings, 1, DType::i64, Reduction::min, nullptr);
  }
  return times;
}

std::string part_of_key(const std::string& key, std::size_t part) {
  return fmt::format("{}|{}", key, part);
}

std::vector<double> recall(const std::string& file, const std::string& key) {
  Measurements known(file, false);
  std::vector<double> spread;
  for (std::size_t part = 0; part < kParts; ++part) {
    spread.push_back(known[part_of_key(key, part)]);
    if (spread.back() == 0.0) return {};
  }
  return spread;
}

void remember(const std::string& file, const std::string& key, const std::vector<double>& spread) {
  Measurements known(file, false);
  for (std::size_t part = 0; part < kParts; ++part) known[part_of_key(key, part)] = spread[part];
  known.store();
}

}  // namespace

std::vector<double> spread_of(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  std::vector<double> spread;
  for (std::size_t part = 0; part < kParts; ++part) {
    // Its middle: a time that another program made long says little.
    spread.push_back(times[(2 * part + 1) * times.size() / (2 * kParts)]);
  }
  const double mean = std::accumulate(spread.begin(), spread.end(), 0.0) / kParts;
  if (mean <= 0.0) return {};
  for (double& time : spread) time /= mean;
  return spread;
}

std::vector<std::vector<double>> measure_spreads(const TrainSpec& spec,
                                                 const std::vector<TrainLayer>& layers,
                                                 Communicator& comm, Device& device) {
  const TrainLayer& layer = layer_with_most_work(layers);
  const std::string key =
      fmt::format("{}|spread|{}|{}|{} at once|batch {}|{} to {} of {}:{}", kVersion,
                  to_string(spec.precision), name_of_kind(device.info()), comm.size(), spec.batch,
                  layer.inputs(), layer.outputs(), layer.units(), layer.pattern.nnz());
  std::vector<double> own = recall(spec.profile_cache, key);
  // Measured together, or by nobody.
  std::int64_t missing = own.empty() ? 1 : 0;
  comm.all_reduce(&missing, &missing, 1, DType::i64, Reduction::max, nullptr);
  if (missing > 0) {
    own = spread_of(measure_times(spec, layer, comm, device));
    own.resize(kParts, 1.0);                          // a clock too coarse for such pieces
    for (int turn = 0; turn < comm.size(); ++turn) {  // of ranks that write the same file
      if (turn == comm.rank()) remember(spec.profile_cache, key, own);
      comm.barrier();
    }
  }
  const std::vector<std::int64_t> counts(static_cast<std::size_t>(comm.size()), kParts);
  std::vector<double> all(kParts * counts.size());
  comm.all_gather(own.data(), all.data(), counts, DType::f64, nullptr);
  std::vector<std::vector<double>> spreads;
  for (auto rank = all.begin(); rank != all.end(); rank += kParts) {
    spreads.emplace_back(rank, rank + kParts);
  }
  return spreads;
}

}  // namespace spdnn::train
