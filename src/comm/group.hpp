// The point where the threads of an in-process group meet: it pairs their calls, checks that they
// agree and wakes everybody when one of them fails.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "spdnn/comm.hpp"

namespace spdnn::comm {

enum class CallKind : std::uint8_t {
  barrier,
  all_gather,
  all_reduce,
  reduce_scatter,
  exchange,
  split,
};

class Group;

using Time = std::chrono::steady_clock::time_point;

/// A rank's end of its declared link. Its groups share it; only the rank's thread uses it.
class Port {
 public:
  explicit Port(const Link& link) : link_(link) {}
  /// Sends bytes after all sent before; when they arrive. The past where no link is declared.
  [[nodiscard]] Time send(std::int64_t bytes);

 private:
  Link link_;
  Time free_{};
};

/// What one rank asks for. It lives on the rank's stack and is read by the others between the
/// meeting and the moment the last of them leaves.
struct Call {
  CallKind kind = CallKind::barrier;
  DType type = DType::f32;
  Reduction reduction = Reduction::sum;
  std::int64_t count = 0;  ///< elements of all pieces together
  std::span<const std::int64_t> counts;
  const void* send = nullptr;
  void* receive = nullptr;
  std::int64_t bytes = 0;  ///< that this rank sends to others
  // Exchange: by peer, null where nothing goes that way.
  std::vector<const Communicator::Message*> to;
  std::vector<const Communicator::Message*> from;
  Time arrives{};  ///< when all that it sends is there
  // Split: what is asked, and the rank's place in its new group.
  int color = 0;
  int key = 0;
  std::shared_ptr<Group> child;
  int child_rank = 0;
};

/// The call as a message shows it, e.g. `all_reduce(5 f32, sum)`.
[[nodiscard]] std::string describe(const Call& call);

/// Why what `from` sends `to` is not what that one expects, in words; nothing where it is.
[[nodiscard]] std::optional<std::string> piece_problem(std::size_t from,
                                                       const Communicator::Message* sent,
                                                       std::size_t to,
                                                       const Communicator::Message* expected);

/// One rank's part of an exchange under way: its pieces by peer, and how far they are. The group
/// reads it from `start` to `finish` or `withdraw`.
struct Flight {
  enum class State : std::uint8_t { waiting, copying, done };
  struct Piece {
    const Communicator::Message* message = nullptr;  ///< null: nothing goes that way
    State state = State::waiting;
    Time arrives{};              ///< of what is sent
    const void* lent = nullptr;  ///< of what is received: where it is, kept by `owner`
    std::shared_ptr<void> owner;
  };
  std::vector<Piece> to, from;
  std::uint64_t number = 0;
  std::condition_variable moved;  ///< all pieces are there, or the group has failed
};

/// State that the ranks of one group share. All functions may be called from any thread.
class Group : public std::enable_shared_from_this<Group> {
 public:
  /// A group split from `parent` keeps it alive, so that a failure of any ancestor reaches it.
  explicit Group(int size, std::shared_ptr<Group> parent = nullptr)
      : parent_(std::move(parent)),
        calls_(static_cast<std::size_t>(size)),
        started_(static_cast<std::size_t>(size)),
        gone_(static_cast<std::size_t>(size)) {}
  [[nodiscard]] int size() const noexcept { return static_cast<int>(calls_.size()); }

  /// Blocks until every rank is here with a call that fits. When it throws `CommError`, no rank
  /// has got through this meeting.
  void meet(int rank, Call& call);

  /// Blocks until every rank that met is done with the others' memory. It does not fail: between
  /// the meeting and here nobody waits for anything else.
  void leave();

  /// What `rank` asked for, between `meet` and `leave`.
  [[nodiscard]] const Call& call_of(int rank) const {
    return *calls_[static_cast<std::size_t>(rank)];
  }

  /// Begins `rank`'s next exchange. Whoever of a pair starts second copies the pieces that are not
  /// lent, so that nobody waits for another to finish. Throws `CommError` where pieces do not fit.
  void start(int rank, Flight& flight);
  /// Blocks until all pieces of the flight are copied or lent; returns when the last of them
  /// arrives.
  [[nodiscard]] Time finish(int rank, Flight& flight);
  /// Fails the group because of a flight that nobody finishes, and lets go of its memory.
  void withdraw(int rank, Flight& flight) noexcept;

  /// Fails the group and those split from it; the first reason stays. Only ranks that have not got
  /// through their meeting are woken with it; the others end their call as if nothing had happened.
  void abort(const std::string& reason);

  /// `rank` will make no more calls: whoever waits for it fails.
  void retire(int rank);

 private:
  struct Failure {
    std::string reason;
    bool found_here = false;  ///< by comparing calls, rather than reported by a rank
  };
  void fail(Failure failure);
  void make_children();
  [[noreturn]] void throw_failure(int rank, const std::string& call) const;
  void pair_up(int rank, Flight& flight, const std::vector<Flight*>& others);
  void copy_claimed(int rank, Flight& flight, const std::vector<Flight*>& others,
                    std::unique_lock<std::mutex>& lock);
  void wake_settled(Flight& flight) const;
  void wake_flights();
  void release(int rank, Flight& flight, std::unique_lock<std::mutex>& lock);

  std::shared_ptr<Group> parent_;
  std::mutex mutex_;
  std::condition_variable met_;
  std::condition_variable left_;
  std::vector<Call*> calls_;  ///< by rank, of the meeting that gathers or is under way
  int arrived_ = 0;
  std::uint64_t meetings_ = 0;
  int leaving_ = 0;
  std::uint64_t leavings_ = 0;
  std::optional<Failure> failure_;
  int retired_ = -1;  ///< the first rank that retired, or -1
  // Exchanges under way.
  std::map<std::uint64_t, std::vector<Flight*>> flights_;  ///< by number, then rank
  std::vector<std::uint64_t> started_;                     ///< by rank: exchanges so far
  std::vector<bool> gone_;                                 ///< ranks that retired
  std::vector<std::weak_ptr<Group>> children_;
};

/// The end of `rank` in `group`, which it retires from when destroyed.
[[nodiscard]] std::unique_ptr<Communicator> make_in_process(std::shared_ptr<Group> group, int rank,
                                                            const Link& link);

/// Runs `body` on a thread for each of `ends`, which are destroyed as it returns. The first error
/// aborts its group and is rethrown, one that is no `OthersFailed` before those that are.
void run_threads(std::vector<std::unique_ptr<Communicator>> ends,
                 const std::function<void(Communicator&)>& body);

}  // namespace spdnn::comm
