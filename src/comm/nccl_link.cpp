// What is around NCCL's calls: connecting the ranks, meeting before each call, waiting with a limit
// and ending in failure.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>
#include <numeric>
#include <thread>
#include <utility>

#include "nccl.hpp"

namespace spdnn::comm {
namespace {

bool failed(NcclResult result) {
  return result != NcclResult::success && result != NcclResult::in_progress;
}

/// Lets others work: NCCL's threads and devices need most calls' microseconds, few need long.
class Pause {
 public:
  void operator()() {
    if (++rounds_ < 1000) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

 private:
  int rounds_ = 0;
};

/// What ranks compare before a call, beside the pieces of an exchange.
struct Ticket {
  std::int64_t kind = 0, type = 0, reduction = 0, count = 0;
  std::uint64_t pieces = 0;  ///< a hash of the counts
  friend bool operator==(const Ticket&, const Ticket&) = default;

  explicit Ticket(const Call& call)
      : kind(static_cast<std::int64_t>(call.kind)),
        type(static_cast<std::int64_t>(call.type)),
        reduction(static_cast<std::int64_t>(call.reduction)),
        count(call.count) {
    for (const std::int64_t piece : call.counts) {
      pieces = (pieces ^ static_cast<std::uint64_t>(piece)) * 0x9E3779B97F4A7C15U;
      pieces ^= pieces >> 29U;
    }
  }
  Ticket() = default;
};

/// Every rank's `value`, which is copied as bytes.
template <class T>
std::vector<T> gather_all(Communicator& host, const T& value) {
  std::vector<T> all(static_cast<std::size_t>(host.size()));
  const std::vector<std::int64_t> counts(all.size(), sizeof(T));
  host.all_gather(&value, all.data(), counts, DType::u8, nullptr);
  return all;
}

}  // namespace

NcclCommunicator::NcclCommunicator(Communicator& host, std::shared_ptr<Stream> stream,
                                   const NcclFunctions& nccl, double patience_s)
    : host_(host), stream_(std::move(stream)), nccl_(nccl), patience_s_(patience_s) {
  connect();
}

NcclCommunicator::NcclCommunicator(std::unique_ptr<Communicator> host,
                                   std::shared_ptr<Stream> stream, const NcclFunctions& nccl,
                                   double patience_s)
    : own_host_(std::move(host)),
      host_(*own_host_),
      stream_(std::move(stream)),
      nccl_(nccl),
      patience_s_(patience_s) {
  connect();
}

/// Rank 0 draws the number that the others find it by. Connecting goes on in NCCL's own threads.
void NcclCommunicator::connect() {
  struct Invitation {
    NcclUniqueId id;
    NcclResult result = NcclResult::success;
  } invitation;
  if (rank() == 0) invitation.result = nccl_.get_unique_id(&invitation.id);
  std::vector<std::int64_t> counts(static_cast<std::size_t>(size()));
  counts[0] = sizeof invitation;
  host_.all_gather(&invitation, &invitation, counts, DType::u8, nullptr);
  if (failed(invitation.result)) {
    throw CommError(fmt::format("NCCL on rank 0 draws no unique id: {}",
                                nccl_.error_string(invitation.result)));
  }
  try {
    NcclConfig config;
    NcclResult result = nccl_.init_rank_config(&comm_, size(), invitation.id, rank(), &config);
    const double start = now_seconds();
    Pause pause;
    if (!failed(result)) result = state();
    while (result == NcclResult::in_progress && now_seconds() - start < patience_s_) {
      pause();
      result = state();
    }
    report_connection(result);
  } catch (...) {
    drop();
    throw;
  }
}

/// Throws on all ranks alike where any of them is not connected.
void NcclCommunicator::report_connection(NcclResult own) {
  const std::vector<NcclResult> results = gather_all(host_, own);
  std::string missing;
  for (std::size_t r = 0; r < results.size(); ++r) {
    if (results[r] == NcclResult::success) continue;
    missing += fmt::format("{}rank {}: {}", missing.empty() ? "" : "; ", r,
                           results[r] == NcclResult::in_progress
                               ? fmt::format("not connected after {:g} s", patience_s_)
                               : nccl_.error_string(results[r]));
  }
  if (missing.empty()) return;
  throw CommError(fmt::format(
      "NCCL does not connect {} ranks ({}); NCCL_DEBUG=INFO shows what it does", size(), missing));
}

NcclCommunicator::~NcclCommunicator() {
  // Where an error unwinds, nobody can be waited for.
  if (comm_ == nullptr || std::uncaught_exceptions() > 0 || !end_quietly()) drop();
}

/// Lets NCCL end once the others are through with what they had together, as all calls have been.
bool NcclCommunicator::end_quietly() {
  constexpr double kLimit = 2.0;
  if (failed(nccl_.finalize(comm_))) return false;
  const double start = now_seconds();
  Pause pause;
  NcclResult now = state();
  while (now == NcclResult::in_progress && now_seconds() - start < kLimit) {
    pause();
    now = state();
  }
  if (now != NcclResult::success) return false;
  nccl_.destroy(std::exchange(comm_, nullptr));
  return true;
}

/// Ends NCCL's kernels of this rank, whatever the others do.
void NcclCommunicator::drop() noexcept {
  if (comm_ != nullptr) nccl_.abort(std::exchange(comm_, nullptr));
}

NcclResult NcclCommunicator::state() const {
  NcclResult now = NcclResult::success;
  const NcclResult asked = nccl_.async_error(comm_, &now);
  return failed(asked) ? asked : now;
}

void NcclCommunicator::abort(const std::string& reason) {
  drop();
  host_.abort(reason);
}

void NcclCommunicator::fail(const std::string& reason) {
  abort(reason);
  throw CommError(reason);
}

void NcclCommunicator::check(NcclResult result, const std::string& what) {
  if (!failed(result)) return;
  fail(fmt::format("rank {} of {}: {} failed in NCCL: {}", rank(), size(), what,
                   nccl_.error_string(result)));
}

/// Has the host communicator do something, with which the group stands or falls.
void NcclCommunicator::meeting(const std::function<void()>& function) {
  try {
    function();
  } catch (...) {
    drop();
    throw;
  }
}

/// A call that is all the host communicator's. Bytes count, unlike those of meetings.
void NcclCommunicator::on_host(const std::function<void()>& function) {
  const std::int64_t before = host_.bytes_sent();
  meeting(function);
  account(host_.bytes_sent() - before);
}

/// Waits for all ranks and compares what they call.
void NcclCommunicator::meet(const Call& call) {
  std::vector<Ticket> tickets;
  try {
    tickets = gather_all(host_, Ticket(call));
  } catch (const OthersFailed& error) {
    drop();
    throw OthersFailed(fmt::format("{}, before {}", error.what(), describe(call)));
  } catch (const CommError& error) {
    drop();
    throw CommError(fmt::format("{}, before {}", error.what(), describe(call)));
  }
  for (std::size_t r = 1; r < tickets.size(); ++r) {
    if (tickets[r] == tickets[0]) continue;
    std::array<char, 160> text{};
    describe(call).copy(text.data(), text.size() - 1);
    std::vector<std::array<char, 160>> texts;
    meeting([&] { texts = gather_all(host_, text); });
    fail(fmt::format("ranks called different things: rank 0 {}, rank {} {}", texts[0].data(), r,
                     texts[r].data()));
  }
  if (call.kind == CallKind::exchange) compare_pieces(call);
  if (comm_ == nullptr) {
    throw CommError(fmt::format("{} after rank {} ended its group", describe(call), rank()));
  }
}

/// Tells every rank what it is sent and expected to send, and looks at what they tell this one.
void NcclCommunicator::compare_pieces(const Call& call) {
  struct Sizes {
    std::int64_t sent = -1, expected = -1;  ///< −1: no piece
  };
  std::vector<Sizes> mine(static_cast<std::size_t>(size())), theirs(mine.size());
  std::vector<Message> sends, receives;
  for (int peer = 0; peer < size(); ++peer) {
    const auto bytes = [](const Message* message) {
      return message == nullptr ? -1 : static_cast<std::int64_t>(message->bytes);
    };
    mine[peer] = {bytes(call.to[peer]), bytes(call.from[peer])};
    sends.push_back({peer, &mine[peer], sizeof(Sizes)});
    receives.push_back({peer, &theirs[peer], sizeof(Sizes)});
  }
  meeting([&] { host_.exchange(sends, receives, nullptr); });
  for (int peer = 0; peer < size(); ++peer) {
    const auto piece = [](std::int64_t bytes) {
      return Message{0, nullptr, static_cast<std::size_t>(std::max<std::int64_t>(bytes, 0))};
    };
    const Message sent = piece(theirs[peer].sent), expected = piece(theirs[peer].expected);
    auto problem =
        piece_problem(rank(), call.to[peer], peer, theirs[peer].expected < 0 ? nullptr : &expected);
    if (!problem) {
      problem =
          piece_problem(peer, theirs[peer].sent < 0 ? nullptr : &sent, rank(), call.from[peer]);
    }
    if (problem) fail(*problem);
  }
}

/// Queues a call on the group's own stream, behind what `stream` was given; what marks its end.
std::unique_ptr<Event> NcclCommunicator::issue(const Call& call, Stream& stream,
                                               const Enqueue& enqueue) {
  meet(call);
  account(call.bytes);
  const std::unique_ptr<Event> before = stream.record();
  stream_->wait(*before);
  check(nccl_.group_start(), "ncclGroupStart");
  const NcclResult queued = enqueue();
  const NcclResult ended = nccl_.group_end();  // also after an error, or the group stays open
  check(queued, describe(call));
  check(ended, describe(call));
  // The work is on the stream once NCCL has connected what it needs.
  wait(describe(call), [this] { return state() != NcclResult::in_progress; });
  return stream_->record();
}

/// A collective, from beginning to end.
void NcclCommunicator::perform(const Call& call, Stream& stream, const Enqueue& enqueue) {
  if (call.count == 0) {
    meet(call);
    return;
  }
  const std::unique_ptr<Event> done = issue(call, stream, enqueue);
  wait(describe(call), [&] { return done->ready(); });
}

void NcclCommunicator::wait(const std::string& what, const std::function<bool()>& done) {
  const double start = now_seconds();
  Pause pause;
  for (;;) {
    if (comm_ == nullptr) throw CommError(fmt::format("{}: rank {}'s group failed", what, rank()));
    check(state(), what);
    if (done()) return;
    if (now_seconds() - start > patience_s_) {
      std::vector<int> others(static_cast<std::size_t>(size()));
      std::iota(others.begin(), others.end(), 0);
      std::erase(others, rank());
      fail(fmt::format("rank {} waits for NCCL in {} with ranks {}: not done after {:g} s", rank(),
                       what, fmt::join(others, ", "), patience_s_));
    }
    pause();
  }
}

}  // namespace spdnn::comm
