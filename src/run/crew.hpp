// Ranks that compute the same images together, each some rows of every layer.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "spdnn/op.hpp"

namespace spdnn {

class Pace;

/// What a crew computes next: the layers of one segment. Activations go back and forth between two
/// buffers.
struct CrewStep {
  std::size_t segment = 0;
  float* from = nullptr;
  float* to = nullptr;
  std::int64_t images = 0;
};

/// A leader (member 0) and its helpers, threads of one process. The members meet before the first
/// layer of a step and after each of its layers. Lives in the leader's roster.
class Crew {
 public:
  /// `speeds`: of the members, relative; rows are shared by them at first. `spin`: members that
  /// wait look a while before they block.
  Crew(const std::vector<double>& speeds, bool spin);
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  [[nodiscard]] std::size_t size() const { return members_.size(); }

  /// Leader: begins a step with the rows shared as they are now.
  void begin(const CrewStep& step, Pace& pace);
  /// Leader: sends the helpers away; the crew may not be used again.
  void dismiss(Pace& pace);
  /// Helper: waits for the next step; false when the crew was dismissed.
  [[nodiscard]] bool next(Pace& pace);

  [[nodiscard]] const CrewStep& step() const { return step_; }
  [[nodiscard]] RowShare rows(std::size_t member) const { return members_[member].rows; }

  /// Waits until every member is done with a layer, whose outputs are then all there. Throws
  /// `CommError` after `abort`.
  void finish_layer(Pace& pace) { meet(pace); }

  /// Where a member's kernel sets the flags of living images; told before the last layer of a step
  /// is finished.
  void tell(std::size_t member, std::uint8_t* alive, double busy_s);
  /// Leader, after a step: a living image is one that has a nonzero in any member's rows.
  void combine_alive(std::uint8_t* alive) const;
  /// Leader, after a step: shares the rows by the speeds the members had in it.
  void rebalance();

  void abort(const std::string& reason);

 private:
  struct Member {
    RowShare rows;
    const std::uint8_t* alive = nullptr;
    double busy_s = 0.0;
  };
  void share_rows(const std::vector<double>& speeds);
  void meet(Pace& pace);
  void check() const;

  std::vector<Member> members_;
  CrewStep step_;
  bool over_ = false;
  int spins_;
  std::atomic<std::uint32_t> arrived_{0}, meetings_{0};
  std::atomic<bool> failed_{false};
  mutable std::mutex mutex_;
  std::string failure_;
};

}  // namespace spdnn
