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
  std::int64_t inputs = 0;       ///< features of the first layer's inputs
  std::int64_t arrangement = 0;  ///< another one where `from` is not what the last step left there
};

/// A layer of which every member has computed its rows.
struct CrewLayer {
  const SpmmKernel<float>* kernel = nullptr;
  const PreparedWeights* weights = nullptr;
  std::int64_t rows = 0;  ///< that shares are of; each gives y.features / rows features
  Panels<float> y;
};

/// What a member works with: its stream, and two buffers for activations.
struct CrewRoom {
  Stream& stream;
  std::int64_t width = 1;  ///< of panels
  float* activations[2] = {};
};

/// A leader (member 0) and its helpers. The members meet before the first layer of a step and after
/// each of its layers. Functions that wait throw `CommError` when a member fails.
class Crew {
 public:
  /// `speeds`: of the members, relative; rows are shared by them at first.
  explicit Crew(const std::vector<double>& speeds);
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  virtual ~Crew() = default;
  [[nodiscard]] std::size_t size() const { return rows_.size(); }
  [[nodiscard]] RowShare rows(std::size_t member) const { return rows_[member]; }

  /// Leader: begins a step with the rows shared as they are now.
  virtual void begin(const CrewStep& step, const CrewRoom& room, Pace& pace) = 0;
  /// Leader: sends the helpers away; the crew may not be used again.
  virtual void dismiss(Pace& pace) = 0;
  /// Helper: waits for the next step; false when the crew was dismissed.
  [[nodiscard]] virtual bool next(const CrewRoom& room, Pace& pace) = 0;
  /// The step under way, in the memory this member is to use.
  [[nodiscard]] const CrewStep& step() const { return step_; }

  /// Waits until every member is done with a layer, whose outputs are then all there.
  virtual void finish_layer(const CrewLayer& layer, const CrewRoom& room, Pace& pace) = 0;

  /// Where a member's kernel sets the flags of living images, and what the step took it; told
  /// before the last layer of a step is finished.
  virtual void tell(std::size_t member, const std::uint8_t* alive, double busy_s) = 0;
  /// Leader, after a step: a living image is one that has a nonzero in any member's rows.
  virtual void combine_alive(std::uint8_t* alive) const = 0;
  /// Leader, after a step: shares the rows by the speeds the members had in it.
  virtual void rebalance() = 0;

 protected:
  /// The same for members that took so many seconds.
  void rebalance(const std::vector<double>& busy_s);
  void share_rows(const std::vector<double>& speeds);

  CrewStep step_;
  std::vector<RowShare> rows_;  ///< by member
};

/// Threads of one process, which compute in the leader's memory.
class SharedCrew final : public Crew {
 public:
  /// `spin`: members that wait look a while before they block.
  SharedCrew(const std::vector<double>& speeds, bool spin);

  void begin(const CrewStep& step, const CrewRoom& room, Pace& pace) override;
  void dismiss(Pace& pace) override;
  [[nodiscard]] bool next(const CrewRoom& room, Pace& pace) override;
  void finish_layer(const CrewLayer& /*layer*/, const CrewRoom& /*room*/, Pace& pace) override {
    meet(pace);
  }
  void tell(std::size_t member, const std::uint8_t* alive, double busy_s) override;
  void combine_alive(std::uint8_t* alive) const override;
  void rebalance() override;

  /// Ends every wait with `reason`. May be called from any thread.
  void abort(const std::string& reason);

 private:
  struct Member {
    const std::uint8_t* alive = nullptr;
    double busy_s = 0.0;
  };
  void meet(Pace& pace);
  void check() const;

  std::vector<Member> members_;
  bool over_ = false;
  int spins_;
  std::atomic<std::uint32_t> arrived_{0}, meetings_{0};
  std::atomic<bool> failed_{false};
  mutable std::mutex mutex_;
  std::string failure_;
};

}  // namespace spdnn
