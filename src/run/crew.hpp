// Ranks that compute the same images together, each some rows of every layer.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "spdnn/op.hpp"

namespace spdnn {

class Pace;

/// What a crew computes next: the layers of one segment. Activations go back and forth between two
/// buffers in panels of `width` images.
struct CrewStep {
  std::size_t segment = 0;
  float* from = nullptr;
  float* to = nullptr;
  std::int64_t images = 0;
  std::int64_t width = 1;
  std::int64_t features = 0;  ///< of `from`
};

/// A leader (member 0) and its helpers. The members meet before the first layer of a step and after
/// each of its layers.
class Crew {
 public:
  /// `speeds`: of the members, relative; rows are shared by them at first.
  explicit Crew(const std::vector<double>& speeds);
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  virtual ~Crew() = default;
  [[nodiscard]] std::size_t size() const { return members_.size(); }

  /// Leader: begins a step with the rows shared as they are now.
  virtual void begin(const CrewStep& step, Pace& pace) = 0;
  /// Leader: sends the helpers away; the crew may not be used again.
  virtual void dismiss(Pace& pace) = 0;
  /// Helper: waits for the next step; false when the crew was dismissed. Where members share no
  /// memory, the step is computed in `own`, two buffers for any layer's activations.
  [[nodiscard]] virtual bool next(const std::array<float*, 2>& own, Pace& pace) = 0;

  [[nodiscard]] const CrewStep& step() const { return step_; }
  [[nodiscard]] RowShare rows(std::size_t member) const { return members_[member].rows; }

  /// Whether the crew has to be told which rows of a layer `member` computes.
  [[nodiscard]] virtual bool needs_rows(std::int64_t /*layer*/) const { return false; }
  virtual void tell_rows(std::int64_t /*layer*/, std::vector<std::uint32_t> /*rows*/) {}
  /// Waits until every member is done with a layer, whose outputs `y` are then all there. Throws
  /// `CommError` after `abort`.
  virtual void finish_layer(std::int64_t layer, const Panels<float>& y, Pace& pace) = 0;

  /// Where a member's kernel sets the flags of living images; told before the last layer of a step
  /// is finished.
  virtual void tell(std::size_t member, std::uint8_t* alive, double busy_s) = 0;
  /// Leader, after a step: a living image is one that has a nonzero in any member's rows.
  virtual void combine_alive(std::uint8_t* alive) const = 0;
  /// Leader, after a step: shares the rows by the speeds the members had in it.
  virtual void rebalance() = 0;

  virtual void abort(const std::string& reason) = 0;

 protected:
  struct Member {
    RowShare rows;
    const std::uint8_t* alive = nullptr;
    double busy_s = 0.0;
  };
  void share_rows(const std::vector<double>& speeds);
  /// Shares rows by what members had in the last step, and how long they took.
  void share_by_speed();

  std::vector<Member> members_;
  CrewStep step_;
};

/// Threads of one process. Lives in the leader's roster.
class SharedCrew final : public Crew {
 public:
  SharedCrew(const std::vector<double>& speeds, bool spin);
  void begin(const CrewStep& step, Pace& pace) override;
  void dismiss(Pace& pace) override;
  [[nodiscard]] bool next(const std::array<float*, 2>& own, Pace& pace) override;
  void finish_layer(std::int64_t layer, const Panels<float>& y, Pace& pace) override;
  void tell(std::size_t member, std::uint8_t* alive, double busy_s) override;
  void combine_alive(std::uint8_t* alive) const override;
  void rebalance() override { share_by_speed(); }
  void abort(const std::string& reason) override;

 private:
  void meet(Pace& pace);
  void check() const;
  bool over_ = false;
  int spins_;
  std::atomic<std::uint32_t> arrived_{0}, meetings_{0};
  std::atomic<bool> failed_{false};
  mutable std::mutex mutex_;
  std::string failure_;
};

}  // namespace spdnn
