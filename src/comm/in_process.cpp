// Collectives between threads of one process. Ranks read each other's memory directly: each call
// meets, pulls what it is due from the others, and leaves when all have done so.
#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "combine.hpp"
#include "host_communicator.hpp"

namespace spdnn {
namespace {

using comm::Call;
using comm::CallKind;
using comm::Group;
using comm::HostCommunicator;

void copy_bytes(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, bytes);
}

/// Returns at `time`, or at once where that is past. A sleep ends late by what the system needs to
/// wake a thread, which is as long as what a declared link takes: the end of the wait is spent
/// awake.
void wait_for_arrival(comm::Time time) {
  constexpr std::chrono::microseconds kWaking{200};
  auto now = std::chrono::steady_clock::now();
  if (time - now > kWaking) std::this_thread::sleep_until(time - kWaking);
  while (now < time) {
    std::this_thread::yield();
    now = std::chrono::steady_clock::now();
  }
}

class InProcess final : public HostCommunicator {
 public:
  InProcess(std::shared_ptr<Group> group, int rank, std::shared_ptr<comm::Port> port)
      : group_(std::move(group)),
        rank_(rank),
        port_(std::move(port)),
        sends_(static_cast<std::size_t>(group_->size())),
        receives_(sends_.size()) {}
  InProcess(const InProcess&) = delete;
  InProcess& operator=(const InProcess&) = delete;
  ~InProcess() override { group_->retire(rank_); }

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return group_->size(); }
  void abort(const std::string& reason) override { group_->abort(reason); }
  [[nodiscard]] std::unique_ptr<Communicator> split(int color, int key) override;

 private:
  class InFlight;
  void perform(Call& call) override;
  [[nodiscard]] std::unique_ptr<Pending> start(Call& call) override;
  void gather(const Call& call);
  void reduce(const Call& call);
  void scatter(const Call& call);
  void take_pieces(const Call& call);
  void collect_memory() noexcept;

  std::shared_ptr<Group> group_;
  int rank_;
  std::shared_ptr<comm::Port> port_;
  // The others' memory in the call under way. Nothing may throw between meeting and leaving, so
  // they are allocated once.
  std::vector<const void*> sends_;
  std::vector<void*> receives_;
};

/// Meets the others, takes what is due from their memory, and leaves when all that was sent is
/// there.
void InProcess::perform(Call& call) {
  call.arrives = port_->send(call.bytes);
  group_->meet(rank_, call);
  switch (call.kind) {
    case CallKind::all_gather: gather(call); break;
    case CallKind::all_reduce: reduce(call); break;
    case CallKind::reduce_scatter: scatter(call); break;
    case CallKind::exchange: take_pieces(call); break;
    case CallKind::barrier:
    case CallKind::split: return;  // nobody reads the others' memory
  }
  comm::Time last{};
  for (int r = 0; r < size(); ++r) last = std::max(last, group_->call_of(r).arrives);
  group_->leave();
  wait_for_arrival(last);
}

void InProcess::collect_memory() noexcept {
  for (std::size_t r = 0; r < sends_.size(); ++r) {
    const Call& call = group_->call_of(static_cast<int>(r));
    sends_[r] = call.send;
    receives_[r] = call.receive;
  }
}

void InProcess::gather(const Call& call) {
  auto* to = static_cast<std::byte*>(call.receive);
  for (int r = 0; r < size(); ++r) {
    const std::size_t bytes = static_cast<std::size_t>(call.counts[r]) * size_of(call.type);
    copy_bytes(to, group_->call_of(r).send, bytes);
    if (bytes > 0) to += bytes;
  }
}

/// Each rank combines one part for all, and touches that part of the others' memory alone: so that
/// all get the same bits, and `send == receive` needs no copy.
void InProcess::reduce(const Call& call) {
  collect_memory();
  const Range own = comm::even_piece(call.count, size(), rank_);
  comm::combine(sends_, receives_, own.begin, own.end, call.type, call.reduction);
}

void InProcess::scatter(const Call& call) {
  const std::int64_t own = call.counts[rank_];
  if (own == 0) return;
  collect_memory();
  std::int64_t before = 0;
  for (const std::int64_t count : call.counts.first(rank_)) before += count;
  const std::size_t offset = static_cast<std::size_t>(before) * size_of(call.type);
  for (const void*& piece : sends_) piece = static_cast<const std::byte*>(piece) + offset;
  void* const receives[] = {call.receive};
  comm::combine(sends_, receives, 0, own, call.type, call.reduction);
}

void InProcess::take_pieces(const Call& call) {
  for (const Message* message : call.from) {
    if (message == nullptr) continue;
    copy_bytes(message->data, group_->call_of(message->peer).to[rank_]->data, message->bytes);
  }
}

/// An exchange under way.
class InProcess::InFlight final : public Pending {
 public:
  InFlight(InProcess& comm, const Call& call) : group_(comm.group_), rank_(comm.rank_) {
    for (int peer = 0; peer < comm.size(); ++peer) {
      comm::Flight::Piece to = {call.to[peer], {}, {}, {}, {}};
      if (to.message != nullptr && peer != rank_) {
        to.arrives = comm.port_->send(static_cast<std::int64_t>(to.message->bytes));
      }
      flight_.to.push_back(to);
      flight_.from.push_back({call.from[peer], {}, {}, {}, {}});
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
    wait_for_arrival(group_->finish(rank_, flight_));
  }
  [[nodiscard]] const void* lent(int peer) const override {
    return flight_.from[static_cast<std::size_t>(peer)].lent;
  }

 private:
  std::shared_ptr<Group> group_;
  int rank_;
  comm::Flight flight_;
  bool under_way_ = false;
};

std::unique_ptr<Communicator::Pending> InProcess::start(Call& call) {
  return std::make_unique<InFlight>(*this, call);
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
