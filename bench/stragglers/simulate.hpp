// The strategies on any number of ranks, simulated event by event with measured costs.
#pragma once

#include <cstdint>
#include <vector>

#include "spdnn/plan.hpp"

namespace spdnn::bench {

/// Images whose activations a CPU's kernels compute side by side: fewer of them take as long.
inline constexpr std::int64_t kSideBySide = 16;

/// What one core takes for its own work, in seconds.
struct WorkCosts {
  /// [segment][groups of `kSideBySide` images], from 0 groups on; more than are listed cost in
  /// proportion.
  std::vector<std::vector<double>> segment_s;
  double load_s = 0.0;  ///< an input image brought into panels
  double pack_s = 0.0;  ///< a living image packed away from dead ones
};

/// What the steps of a run take, in seconds.
struct StepCosts {
  WorkCosts steady;
  WorkCosts drowsy;  ///< of a rank that sleeps after each segment, as slowed ones do: it has to
                     ///< wake, and finds its caches cold
  std::vector<double> segment_edges;  ///< of one image
  double step_s = 0.0;                ///< a segment's step beside its kernels: bookkeeping
  double copy_s = 0.0;                ///< an image under way handed to another rank
  double wake_s = 0.0;                ///< until a waiting rank has begun what it was given
  double meet_s = 0.0;                ///< a meeting of two ranks; of n ranks n − 1 times as much
  double fetch_s = 0.0;  ///< for a group and a layer: what others wrote, were that everything
  double prepare_alone_s = 0.0;   ///< before the first image, on every rank
  double prepare_shared_s = 0.0;  ///< before the first image, divided between the ranks
  double finish_s = 0.0;          ///< after the last rank: gathering
};

struct SimulatedRank {
  double busy_s = 0.0, idle_s = 0.0;
  std::int64_t begun = 0, taken_over = 0, helped_segments = 0;  ///< as in `DeviceResult`
};

struct SimulatedRun {
  double seconds = 0.0;
  std::vector<SimulatedRank> ranks;
};

/// Runs `plan` on as many single-thread CPU ranks as it is for. `last_segment[i]` is the segment in
/// which image i dies, or the number of segments where it does not; `slowdowns` is by rank. The
/// ranks decide as those of `src/run` do, at the ends of the same segments; nothing is random.
/// Dead images must stay dead (`dead_stays_dead_from` 0).
[[nodiscard]] SimulatedRun simulate(const Plan& plan, const std::vector<std::int32_t>& last_segment,
                                    const std::vector<double>& slowdowns, const StepCosts& costs);

}  // namespace spdnn::bench
