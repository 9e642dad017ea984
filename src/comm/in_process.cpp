// Collectives between threads of one process. Ranks read each other's memory directly: each call
// meets, pulls what it is due from the others, and leaves when all have done so.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <thread>
#include <utility>

#include "combine.hpp"
#include "group.hpp"
#include "spdnn/comm.hpp"
#include "staging.hpp"

namespace spdnn {
namespace {

using comm::Call;
using comm::CallKind;
using comm::Group;
using comm::Staging;

constexpr std::int64_t max_elements = std::numeric_limits<std::int64_t>::max() / 8;

void copy_bytes(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, bytes);
}

/// Elements before the piece of `rank`.
std::int64_t offset_of(std::span<const std::int64_t> counts, int rank) {
  std::int64_t offset = 0;
  for (const std::int64_t count : counts.first(static_cast<std::size_t>(rank))) offset += count;
  return offset;
}

class InProcess final : public Communicator {
 public:
  InProcess(std::shared_ptr<Group> group, int rank, std::shared_ptr<comm::Port> port)
      : group_(std::move(group)),
        rank_(rank),
        port_(std::move(port)),
        sends_(static_cast<std::size_t>(size())),
        receives_(static_cast<std::size_t>(size())) {}
  InProcess(const InProcess&) = delete;
  InProcess& operator=(const InProcess&) = delete;
  ~InProcess() override { group_->retire(rank_); }

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return group_->size(); }
  [[nodiscard]] std::int64_t bytes_sent() const override { return bytes_sent_; }
  void abort(const std::string& reason) override { group_->abort(reason); }

  void barrier() override {
    Call call;
    call.kind = CallKind::barrier;
    group_->meet(rank_, call);
  }

  void all_gather(const void* send, void* receive, std::span<const std::int64_t> counts, DType type,
                  Stream* stream) override;
  void all_reduce(const void* send, void* receive, std::int64_t count, DType type,
                  Reduction reduction, Stream* stream) override;
  void reduce_scatter(const void* send, void* receive, std::span<const std::int64_t> counts,
                      DType type, Reduction reduction, Stream* stream) override;
  void exchange(std::span<const Message> sends, std::span<const Message> receives,
                Stream* stream) override;
  [[nodiscard]] std::unique_ptr<Pending> start_exchange(std::span<const Message> sends,
                                                        std::span<const Message> receives,
                                                        Stream* stream) override;
  [[nodiscard]] std::unique_ptr<Communicator> split(int color, int key) override;

 private:
  class InFlight;
  /// Fails the group: a call that makes no sense on one rank leaves the others nothing to wait for.
  [[noreturn]] void reject(const Call& call, const std::string& why) {
    const std::string reason = fmt::format("rank {} called {}: {}", rank_, describe(call), why);
    group_->abort(reason);
    throw CommError(reason);
  }
  void check_counts(Call& call, std::span<const std::int64_t> counts);
  void check_reduction(const Call& call);
  void check_messages(const Call& call, std::span<const Message> messages,
                      std::vector<const Message*>& by_peer);
  void check_memory(const Call& call, const void* data, std::size_t bytes);
  void collect_memory() noexcept;
  /// What a call sends to others, before it meets them.
  void post(Call& call, std::int64_t bytes) {
    call.arrives = port_->send(bytes);
    bytes_sent_ += bytes;
  }
  /// Ends a meeting when all that was sent in it is there.
  void leave();

  std::shared_ptr<Group> group_;
  int rank_;
  std::shared_ptr<comm::Port> port_;
  std::int64_t bytes_sent_ = 0;
  // The others' memory in the call under way. Nothing may throw between meeting and leaving, so
  // they are allocated once.
  std::vector<const void*> sends_;
  std::vector<void*> receives_;
};

void InProcess::check_counts(Call& call, std::span<const std::int64_t> counts) {
  call.counts = counts;
  if (counts.size() != static_cast<std::size_t>(size())) {
    reject(call, fmt::format("{} counts for {} ranks", counts.size(), size()));
  }
  for (const std::int64_t count : counts) {
    if (count < 0 || count > max_elements - call.count) {
      reject(call,
             fmt::format("a count of {}; allowed are 0 or more, {} together", count, max_elements));
    }
    call.count += count;
  }
}

void InProcess::check_reduction(const Call& call) {
  if (call.count < 0 || call.count > max_elements) {
    reject(call, fmt::format("a count of {}; allowed are 0 to {}", call.count, max_elements));
  }
  if (!comm::can_combine(call.type, call.reduction)) {
    reject(call, "bits are combined of integers only");
  }
}

void InProcess::check_messages(const Call& call, std::span<const Message> messages,
                               std::vector<const Message*>& by_peer) {
  by_peer.assign(static_cast<std::size_t>(size()), nullptr);
  for (const Message& message : messages) {
    if (message.peer < 0 || message.peer >= size()) {
      reject(call, fmt::format("no rank {} in a group of {}", message.peer, size()));
    }
    const Message*& place = by_peer[static_cast<std::size_t>(message.peer)];
    if (place != nullptr) {
      reject(call, fmt::format("two pieces for the same way to or from rank {}", message.peer));
    }
    place = &message;
    check_memory(call, message.data, message.bytes);
  }
}

void InProcess::check_memory(const Call& call, const void* data, std::size_t bytes) {
  if (data == nullptr && bytes > 0) reject(call, fmt::format("no memory for {} bytes", bytes));
}

void InProcess::collect_memory() noexcept {
  for (std::size_t r = 0; r < sends_.size(); ++r) {
    const Call& call = group_->call_of(static_cast<int>(r));
    sends_[r] = call.send;
    receives_[r] = call.receive;
  }
}

void InProcess::all_gather(const void* send, void* receive, std::span<const std::int64_t> counts,
                           DType type, Stream* stream) {
  Call call;
  call.kind = CallKind::all_gather;
  call.type = type;
  check_counts(call, counts);
  const std::size_t width = size_of(type);
  const auto bytes_of = [&](int r) {
    return static_cast<std::size_t>(counts[static_cast<std::size_t>(r)]) * width;
  };
  const std::size_t all_bytes = static_cast<std::size_t>(call.count) * width;
  check_memory(call, send, bytes_of(rank_));
  check_memory(call, receive, all_bytes);
  Staging staging(stream);
  call.send = staging.input(send, bytes_of(rank_));
  call.receive = staging.output(receive, all_bytes);
  staging.begin();
  post(call, static_cast<std::int64_t>(bytes_of(rank_)) * (size() - 1));
  group_->meet(rank_, call);
  auto* to = static_cast<std::byte*>(call.receive);
  for (int r = 0; r < size(); ++r) {
    copy_bytes(to, group_->call_of(r).send, bytes_of(r));
    if (bytes_of(r) > 0) to += bytes_of(r);
  }
  leave();
  staging.end();
}

void InProcess::all_reduce(const void* send, void* receive, std::int64_t count, DType type,
                           Reduction reduction, Stream* stream) {
  Call call;
  call.kind = CallKind::all_reduce;
  call.type = type;
  call.reduction = reduction;
  call.count = count;
  check_reduction(call);
  const std::size_t bytes = static_cast<std::size_t>(count) * size_of(type);
  check_memory(call, send, bytes);
  check_memory(call, receive, bytes);
  Staging staging(stream);
  call.send = staging.input(send, bytes);
  call.receive = staging.output(receive, bytes);
  staging.begin();
  // Each rank combines one part for all, and touches that part of the others' memory alone: so
  // that all get the same bits, and `send == receive` needs no copy.
  const std::int64_t each = count / size();
  const std::int64_t more = count % size();
  const std::int64_t begin = each * rank_ + std::min<std::int64_t>(more, rank_);
  const std::int64_t end = begin + each + (rank_ < more ? 1 : 0);
  const std::int64_t own = end - begin;
  post(call, (count - own + own * (size() - 1)) * static_cast<std::int64_t>(size_of(type)));
  group_->meet(rank_, call);
  collect_memory();
  comm::combine(sends_, receives_, begin, end, type, reduction);
  leave();
  staging.end();
}

void InProcess::reduce_scatter(const void* send, void* receive,
                               std::span<const std::int64_t> counts, DType type,
                               Reduction reduction, Stream* stream) {
  Call call;
  call.kind = CallKind::reduce_scatter;
  call.type = type;
  call.reduction = reduction;
  check_counts(call, counts);
  check_reduction(call);
  const std::size_t width = size_of(type);
  const std::int64_t own = counts[static_cast<std::size_t>(rank_)];
  const std::size_t all_bytes = static_cast<std::size_t>(call.count) * width;
  const std::size_t own_bytes = static_cast<std::size_t>(own) * width;
  check_memory(call, send, all_bytes);
  check_memory(call, receive, own_bytes);
  Staging staging(stream);
  call.send = staging.input(send, all_bytes);
  call.receive = staging.output(receive, own_bytes);
  staging.begin();
  post(call, (call.count - own) * static_cast<std::int64_t>(width));
  group_->meet(rank_, call);
  if (own > 0) {
    collect_memory();
    const std::size_t offset = static_cast<std::size_t>(offset_of(counts, rank_)) * width;
    for (const void*& piece : sends_) piece = static_cast<const std::byte*>(piece) + offset;
    void* const receives[] = {call.receive};
    comm::combine(sends_, receives, 0, own, type, reduction);
  }
  leave();
  staging.end();
}

void InProcess::exchange(std::span<const Message> sends, std::span<const Message> receives,
                         Stream* stream) {
  Call call;
  call.kind = CallKind::exchange;
  std::vector<Message> staged_sends(sends.begin(), sends.end());
  std::vector<Message> staged_receives(receives.begin(), receives.end());
  check_messages(call, staged_sends, call.to);
  check_messages(call, staged_receives, call.from);
  Staging staging(stream);
  for (Message& message : staged_sends) {
    // Messages have one type for both ways; what is sent is only read.
    message.data = const_cast<void*>(staging.input(message.data, message.bytes));
  }
  for (Message& message : staged_receives) {
    message.data = staging.output(message.data, message.bytes);
  }
  staging.begin();
  std::int64_t bytes = 0;
  for (const Message& message : staged_sends) {
    if (message.peer != rank_) bytes += static_cast<std::int64_t>(message.bytes);
  }
  post(call, bytes);
  group_->meet(rank_, call);
  for (const Message& message : staged_receives) {
    const Message* sent = group_->call_of(message.peer).to[static_cast<std::size_t>(rank_)];
    copy_bytes(message.data, sent->data, message.bytes);
  }
  leave();
  staging.end();
}

/// An exchange under way, with the memory it needs until it is finished.
class InProcess::InFlight final : public Pending {
 public:
  InFlight(InProcess& comm, std::span<const Message> sends, std::span<const Message> receives,
           Stream* stream)
      : group_(comm.group_),
        rank_(comm.rank_),
        sends_(sends.begin(), sends.end()),
        receives_(receives.begin(), receives.end()),
        staging_(stream) {
    Call call;
    call.kind = CallKind::exchange;
    comm.check_messages(call, sends_, call.to);
    comm.check_messages(call, receives_, call.from);
    for (Message& message : sends_) {
      message.data = const_cast<void*>(staging_.input(message.data, message.bytes));
    }
    for (Message& message : receives_) {
      message.data = staging_.output(message.data, message.bytes);
    }
    staging_.begin();
    for (int peer = 0; peer < comm.size(); ++peer) {
      const auto at = static_cast<std::size_t>(peer);
      comm::Flight::Piece to = {call.to[at], {}, {}};
      if (to.message != nullptr && peer != rank_) {
        const auto bytes = static_cast<std::int64_t>(to.message->bytes);
        to.arrives = comm.port_->send(bytes);
        comm.bytes_sent_ += bytes;
      }
      flight_.to.push_back(to);
      flight_.from.push_back({call.from[at], {}, {}});
    }
    group_->start(rank_, flight_);
    under_way_ = true;
  }
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;
  ~InFlight() override {
    if (under_way_) group_->withdraw(rank_, flight_);
  }
  void finish() override {
    under_way_ = false;
    std::this_thread::sleep_until(group_->finish(rank_, flight_));
    staging_.end();
  }

 private:
  std::shared_ptr<Group> group_;
  int rank_;
  std::vector<Message> sends_, receives_;
  Staging staging_;
  comm::Flight flight_;
  bool under_way_ = false;
};

std::unique_ptr<Communicator::Pending> InProcess::start_exchange(std::span<const Message> sends,
                                                                 std::span<const Message> receives,
                                                                 Stream* stream) {
  return std::make_unique<InFlight>(*this, sends, receives, stream);
}

void InProcess::leave() {
  comm::Time last{};
  for (int r = 0; r < size(); ++r) last = std::max(last, group_->call_of(r).arrives);
  group_->leave();
  std::this_thread::sleep_until(last);
}

std::unique_ptr<Communicator> InProcess::split(int color, int key) {
  Call call;
  call.kind = CallKind::split;
  call.color = color;
  call.key = key;
  group_->meet(rank_, call);
  return std::make_unique<InProcess>(std::move(call.child), call.child_rank, port_);
}

}  // namespace

std::unique_ptr<Communicator> comm::make_in_process(std::shared_ptr<Group> group, int rank,
                                                    const Link& link) {
  return std::make_unique<InProcess>(std::move(group), rank, std::make_shared<Port>(link));
}

}  // namespace spdnn
