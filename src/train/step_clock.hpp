// Timing what a rank does between others' work.
#pragma once

#include <functional>
#include <vector>

#include "spdnn/device.hpp"

namespace spdnn::train {

/// Runs begin with cold caches, as steps of training do, between which others use them: small
/// shares take a third longer that way.
class StepClock {
 public:
  explicit StepClock(Device& device);
  /// Seconds of the fastest of a few runs after a warm-up, since noise only ever adds; one that
  /// takes long is trusted at once. Of a rank that is one thread it is time on a core, as that is
  /// what its clock goes by (`Pace`).
  [[nodiscard]] double fastest(const std::function<void()>& run);
  /// The clock that it goes by.
  [[nodiscard]] double now() const { return by_thread_ ? thread_cpu_seconds() : now_seconds(); }

 private:
  void evict();

  std::vector<unsigned char> evicting_;
  bool by_thread_;
};

}  // namespace spdnn::train
