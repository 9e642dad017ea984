// Images that no simulated rank has begun yet: `ImageQueue` of `src/run`, one call at a time.
#pragma once

#include <algorithm>
#include <vector>

#include "spdnn/plan.hpp"

namespace spdnn::bench {

/// Hands out what is left of each rank's share, in batches; a rank without images of its own takes
/// the back half of the largest rest where the plan lets it.
class SimulatedQueue {
 public:
  explicit SimulatedQueue(const Plan& plan) : plan_(plan), shares_(plan.images) {
    if (plan.sharing != Sharing::common) return;
    Range all;
    for (const Range& share : shares_) all.end = std::max(all.end, share.end);
    shares_.assign(shares_.size(), {});
    shares_[0] = all;
  }

  /// The next images for `rank` to begin; empty when there are none that it may have.
  [[nodiscard]] Range take(int rank) {
    Range& own = shares_[plan_.sharing == Sharing::common ? 0 : rank];
    if (own.size() == 0 && plan_.sharing == Sharing::stealing) own = steal();
    const Range taken = {own.begin, std::min(own.begin + plan_.batch[rank], own.end)};
    own.begin = taken.end;
    return taken;
  }

 private:
  Range steal() {
    const auto victim =
        std::max_element(shares_.begin(), shares_.end(),
                         [](const Range& a, const Range& b) { return a.size() < b.size(); });
    const std::int64_t grain = std::max<std::int64_t>(plan_.grain, 1);
    const std::int64_t half = (victim->size() / 2 + grain - 1) / grain * grain;
    const std::int64_t stolen = std::min(std::max(half, grain), victim->size());
    victim->end -= stolen;
    return {victim->end, victim->end + stolen};
  }

  const Plan& plan_;
  std::vector<Range> shares_;
};

}  // namespace spdnn::bench
