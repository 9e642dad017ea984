// Where ranks without images offer their help, and ranks with images find it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "crew.hpp"

namespace spdnn {

struct Slots;

/// Images under way, handed over: they lie in the receiver's landing slots, packed from slot 0, and
/// go on with `segment`.
struct Parcel {
  std::size_t segment = 0;
  std::int64_t images = 0;
};

/// A place in a crew; between processes, where every member has an end of its own, the roster knows
/// the place alone.
struct Membership {
  std::shared_ptr<Crew> crew;
  std::size_t member = 0;
};

using Assignment = std::variant<Parcel, Membership>;

/// Where ranks that may help one another meet. A rank is active until it offers itself; when all of
/// them have, the work is done. Functions that wait throw `CommError` once the roster is aborted.
class Roster {
 public:
  virtual ~Roster() = default;
  /// `rank` has nothing to do; its `landing` slots may be written from now on. Waits for work;
  /// nothing when no rank has any.
  [[nodiscard]] virtual std::optional<Assignment> offer(int rank, Slots* landing) = 0;

  /// Ranks waiting for work now. Cheap.
  [[nodiscard]] virtual int idle() const = 0;
  /// The relative speed of the fastest of them; 0 where there are none.
  [[nodiscard]] virtual double fastest_idle() const = 0;

  /// The work `rank` still has, in seconds as it estimates them.
  virtual void tell_remaining(int rank, double seconds) = 0;

  /// A rank claimed by another, which must give it an assignment.
  struct Helper {
    int rank = -1;
    Slots* landing = nullptr;
  };
  /// Claims idle ranks for active rank `rank`, the fastest first: its part of them by what each
  /// active rank has left, one at least and `most` at most; none when none is idle.
  [[nodiscard]] virtual std::vector<Helper> claim(int rank, std::size_t most) = 0;
  /// Waits until all ranks but `rank` are idle, and claims them.
  [[nodiscard]] virtual std::vector<Helper> claim_all(int rank) = 0;
  virtual void give(const Helper& helper, const Assignment& assignment) = 0;

  /// A crew of `helpers` under active rank `leader`, which has no other one now; `speeds` by rank.
  [[nodiscard]] virtual std::shared_ptr<Crew> form_crew(int leader,
                                                        const std::vector<Helper>& helpers,
                                                        const std::vector<double>& speeds) = 0;

  /// Ends every wait with `reason`.
  virtual void abort(const std::string& reason) = 0;

 protected:
  /// The leader's speed, and the helpers'.
  [[nodiscard]] static std::vector<double> member_speeds(int leader,
                                                         const std::vector<Helper>& helpers,
                                                         const std::vector<double>& speeds);
};

/// Ranks that wait for work.
struct IdleRanks {
  std::int64_t count = 0;
  double fastest = 0.0;  ///< relative speed; 0 where there are none
};

/// The ranks of one process. All functions may be called from any thread.
class SharedRoster final : public Roster {
 public:
  /// Called with who waits, each time that changes, in that order; must not call the roster.
  using OnIdle = std::function<void(const IdleRanks& idle)>;
  /// Of ranks of these relative speeds. `spin`: waiting members of a crew may keep their cores busy
  /// for a short while.
  SharedRoster(std::vector<double> speeds, bool spin, OnIdle on_idle = {});
  [[nodiscard]] std::optional<Assignment> offer(int rank, Slots* landing) override;
  [[nodiscard]] int idle() const override { return idle_count_.load(std::memory_order_relaxed); }
  [[nodiscard]] double fastest_idle() const override {
    return fastest_idle_.load(std::memory_order_relaxed);
  }
  void tell_remaining(int rank, double seconds) override;
  [[nodiscard]] std::vector<Helper> claim(int rank, std::size_t most) override;
  [[nodiscard]] std::vector<Helper> claim_all(int rank) override;
  void give(const Helper& helper, const Assignment& assignment) override;
  [[nodiscard]] std::shared_ptr<Crew> form_crew(int leader, const std::vector<Helper>& helpers,
                                                const std::vector<double>& speeds) override;
  void abort(const std::string& reason) override;

 private:
  struct Place {
    bool idle = false;
    Slots* landing = nullptr;
    std::optional<Assignment> assignment;
    std::atomic<double> remaining{0.0};
    std::shared_ptr<SharedCrew> crew;  ///< the last one this rank led
  };
  Helper take(int rank);
  void note_idle();
  void check() const;

  std::vector<double> speeds_;
  std::vector<int> by_speed_;  ///< ranks, the fastest first
  bool spin_;
  OnIdle on_idle_;
  std::vector<Place> places_;
  std::atomic<int> idle_count_{0};
  std::atomic<double> fastest_idle_{0.0};
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<std::string> failure_;
  bool over_ = false;
};

}  // namespace spdnn
