// The point where the threads of an in-process group meet: it pairs their calls, checks that they
// agree and wakes everybody when one of them fails.
#pragma once

#include <condition_variable>
#include <cstdint>
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
  // Exchange: by peer, null where nothing goes that way.
  std::vector<const Communicator::Message*> to;
  std::vector<const Communicator::Message*> from;
  // Split: what is asked, and the rank's place in its new group.
  int color = 0;
  int key = 0;
  std::shared_ptr<Group> child;
  int child_rank = 0;
};

/// The call as a message shows it, e.g. `all_reduce(5 f32, sum)`.
[[nodiscard]] std::string describe(const Call& call);

/// Thrown where another rank failed or left first: not the error to look for.
class Consequence final : public CommError {
 public:
  using CommError::CommError;
};

/// State that the ranks of one group share. All functions may be called from any thread.
class Group : public std::enable_shared_from_this<Group> {
 public:
  /// A group split from `parent` keeps it alive, so that a failure of any ancestor reaches it.
  explicit Group(int size, std::shared_ptr<Group> parent = nullptr)
      : parent_(std::move(parent)), calls_(static_cast<std::size_t>(size)) {}
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
  [[noreturn]] void throw_failure(int rank, const Call& call) const;

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
  std::vector<std::weak_ptr<Group>> children_;
};

}  // namespace spdnn::comm
