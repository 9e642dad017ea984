// What a simulated rank has to do, who helps it, and how long it waited.
#pragma once

#include <map>
#include <vector>

#include "stragglers/simulate.hpp"

namespace spdnn::bench {

using Images = std::vector<std::int32_t>;  ///< by image: the segment in which it dies

/// Ranks that share the rows of a leader's images; member 0 is the leader.
struct Team {
  std::vector<int> members;
  std::vector<double> shares;  ///< of the rows, by member; together 1

  /// Gives each member rows in proportion to its speed.
  void share_rows(const std::vector<double>& speeds) {
    double all = 0.0;
    for (const double speed : speeds) all += speed;
    shares.clear();
    for (const double speed : speeds) shares.push_back(speed / all);
  }
};

struct Rank {
  double slowdown = 1.0;
  std::map<std::size_t, Images> pools;
  Images current;
  std::size_t segment = 0;  ///< next of the current images
  bool here = false;        ///< they were not set aside at the end of their last segment
  double step_s = 0.0;      ///< their last segment took
  std::size_t step_images = 0;

  Team crew;  ///< without members when there is none
  bool crews_pay = true;
  double alone_rate = 0.0;
  std::int64_t image_layers = 0;

  bool idle = false;
  double ended_s = 0.0;
  double waited_s = 0.0, wait_start_s = 0.0;
  double remaining_s = 0.0;
  SimulatedRank result;

  void end_wait(double time) {
    idle = false;
    waited_s += time - wait_start_s;
    wait_start_s = time;
  }

  /// The last pool that fills a batch; the end of `pools` where none does.
  [[nodiscard]] std::map<std::size_t, Images>::iterator full_pool(std::int64_t batch) {
    auto found = pools.end();
    for (auto pool = pools.begin(); pool != pools.end(); ++pool) {
      if (std::ssize(pool->second) >= batch) found = pool;
    }
    return found;
  }
};

}  // namespace spdnn::bench
