// A rank's clock: how long it worked and waited, and how a declared slowdown holds it back.
#pragma once

#include <cstdint>
#include <vector>

#include "spdnn/device.hpp"

namespace spdnn {

/// Accounts for one rank's thread, and makes it as slow as its device is declared to be: work ends
/// no earlier than `slowdown` times the CPU time it took after it began, so that time in which the
/// thread had no core counts toward it. Used from that thread alone.
class Pace {
 public:
  /// Starts the clock of a rank that is `slowdown` times slower throughout.
  explicit Pace(double slowdown);
  /// Starts the clock of a rank on `spec`, whose slowdown may change with time or with steps.
  explicit Pace(const DeviceSpec& spec);
  /// Work from here on belongs to step `step`, for a slowdown that changes by steps.
  void begin_step(std::int64_t step);
  /// When the work done so far may end, at the earliest now. What comes next may begin before that
  /// where nobody else could tell: a rank that sleeps once and long finds less of its caches taken
  /// by others than one that sleeps often.
  [[nodiscard]] double due();
  /// Sleeps until then. What a sleep takes too long is made good by the next.
  void hold();
  /// Around everything that waits for other ranks: it is neither work nor slowed. Work before it
  /// is held first.
  void begin_wait();
  void end_wait();
  /// Seconds of work since the start, for the slowdown too, slept or still to be slept.
  [[nodiscard]] double busy();
  /// The slowdown at this moment.
  [[nodiscard]] double slowdown() const noexcept { return slowdown_; }

 private:
  [[nodiscard]] static DeviceSpec slowed(double slowdown);
  [[nodiscard]] bool slows() const noexcept { return slowdown_ > 1.0 || !changes_.empty(); }
  void pass_changes(double at);

  double slowdown_;
  std::vector<SlowdownChange> changes_;  ///< that are still to come
  bool by_seconds_ = false;
  double start_, waited_ = 0.0;
  double cpu_;  ///< of the thread, as far as it is in `due_`
  double due_;  ///< when the work so far may end
  double wait_start_ = 0.0;
};

}  // namespace spdnn
