// What the steps of a run cost on one core, measured with the kernels and batches of a plan.
#pragma once

#include <cstdint>
#include <vector>

#include "spdnn/model.hpp"
#include "stragglers/simulate.hpp"

namespace spdnn::bench {

/// By image of `images`, in order: the segment of `plan` in which it dies, or the number of
/// segments where it does not.
[[nodiscard]] std::vector<std::int32_t> find_last_segments(const Model& model, const Csr& images,
                                                           const Plan& plan, int core);

/// Times of a rank's own work: [segment][step of `WorkMeter::groups()`][pass].
struct WorkSamples {
  std::vector<std::vector<std::vector<double>>> segments;
  std::vector<double> load, pack;  ///< an image
  void add(const WorkSamples& more);
};

/// Measures what one core takes for a rank's own work, a pass at a time: how fast a virtual core is
/// changes from minute to minute, so passes stand between the runs that they are to explain.
class WorkMeter {
 public:
  /// `model` and `images` outlive it.
  WorkMeter(const Model& model, const Csr& images, Plan plan, int core);

  /// Numbers of groups of `kSideBySide` images, from 0 to about one and a half batches, in steps of
  /// a quarter at most.
  [[nodiscard]] const std::vector<std::int64_t>& groups() const { return groups_; }

  /// One more pass over all segments for each of these numbers, in which no image is dropped, and
  /// one of some batches in which the dead are. `drowsy`: the thread sleeps after each segment,
  /// twice as long as that took; then its CPU time counts.
  void pass(bool drowsy, WorkSamples& samples) const;

  /// Medians.
  [[nodiscard]] WorkCosts costs(const WorkSamples& samples) const;

 private:
  const Model& model_;
  const Csr& images_;
  Plan plan_;
  int core_;
  std::vector<std::int64_t> groups_;
};

/// Seconds to copy an image of `features` activations to another rank's panels.
[[nodiscard]] double measure_copy(std::int64_t features, std::int64_t width);

/// Seconds until a thread that blocks in a condition variable runs after it was notified.
[[nodiscard]] double measure_wake();

}  // namespace spdnn::bench
