// Collectives made of messages between pairs of ranks. Each call begins with a header from every
// rank to every other, so that calls that do not fit are named instead of waited for; what a call
// sends goes with its header where it can.
#include "mpi_group.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>
#include <utility>

#include "combine.hpp"
#include "mpi_transfers.hpp"
#include "mpi_watch.hpp"

namespace spdnn::comm {
namespace {

/// Exchanges of larger groups go without headers: a rank has few neighbours in them.
constexpr int kMostChecked = 16;

std::uint64_t hash_of(std::span<const std::int64_t> counts) {
  std::uint64_t hash = 0x9E3779B97F4A7C15U;
  for (const std::int64_t count : counts) {
    hash = (hash ^ static_cast<std::uint64_t>(count)) * 0xD6E8FEB86659FD93U;
    hash ^= hash >> 32U;
  }
  return hash;
}

/// The bytes of each rank's piece.
std::vector<Range> pieces_of(const Call& call, int ranks) {
  const auto width = static_cast<std::int64_t>(size_of(call.type));
  std::vector<Range> pieces;
  std::int64_t begin = 0;
  for (int r = 0; r < ranks; ++r) {
    const std::int64_t count =
        call.counts.empty() ? even_piece(call.count, ranks, r).size() : call.counts[r];
    pieces.push_back({begin, begin + count * width});
    begin = pieces.back().end;
  }
  return pieces;
}

void copy_bytes(void* to, const void* from, std::int64_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

}  // namespace

/// What a rank tells another of its call, and in an exchange, of what goes between the two.
struct MpiCommunicator::Header {
  CallKind kind = CallKind::barrier;
  DType type = DType::f32;
  Reduction reduction = Reduction::sum;
  std::int64_t count = 0;
  std::uint64_t counts = 0;
  std::int64_t sends = -1, expects = -1;  ///< bytes; −1: nothing
  std::int32_t color = 0, key = 0;
  std::uint32_t next_group = 0;

  [[nodiscard]] bool fits(const Header& o) const {
    return std::tie(kind, type, reduction, count, counts) ==
           std::tie(o.kind, o.type, o.reduction, o.count, o.counts);
  }
};

/// The headers of one call, on their way.
class MpiCommunicator::Meeting {
 public:
  Meeting(MpiCommunicator& comm, const Call& call)
      : comm_(comm), call_(call), transfers_(comm, true) {
    comm.check(describe(call));
    if (call.kind == CallKind::exchange && comm.size() > kMostChecked) return;
    Header own;
    own.kind = call.kind;
    own.type = call.type;
    own.reduction = call.reduction;
    own.count = call.count;
    own.counts = hash_of(call.counts);
    own.color = call.color;
    own.key = call.key;
    own.next_group = comm.next_group_;
    out_.assign(comm.group_.places.size(), own);
    in_ = out_;
    for (int peer = 0; peer < comm.size(); ++peer) {
      if (call.kind == CallKind::exchange) {
        out_[peer].sends = bytes_of(call.to[peer]);
        out_[peer].expects = bytes_of(call.from[peer]);
      }
      if (peer == comm.rank_) {
        in_[peer] = out_[peer];
        continue;
      }
      transfers_.send(peer, &out_[peer], sizeof(Header));
      transfers_.receive(peer, &in_[peer], sizeof(Header));
    }
  }
  /// Waits for every rank, and throws where calls do not fit. The headers, by rank. Once more, it
  /// only returns them.
  const std::vector<Header>& finish() {
    if (std::exchange(finished_, true)) return in_;
    transfers_.wait(call_);
    for (std::size_t r = 1; r < in_.size(); ++r) {
      if (!in_[r].fits(in_[0])) tell_mismatch(static_cast<int>(r));
    }
    if (call_.kind == CallKind::exchange) check_pieces();
    return in_;
  }

 private:
  static std::int64_t bytes_of(const Message* message) {
    return message == nullptr ? -1 : static_cast<std::int64_t>(message->bytes);
  }

  /// Every rank has seen the same headers: all tell what they called, and fail alike.
  [[noreturn]] void tell_mismatch(int odd) {
    constexpr std::size_t kLongest = 400;
    std::vector<std::array<char, kLongest>> texts(in_.size());
    const std::string own = describe(call_);
    own.copy(texts[comm_.rank_].data(), kLongest - 1);
    MpiTransfers transfers(comm_, true);
    for (int peer = 0; peer < comm_.size(); ++peer) {
      if (peer == comm_.rank_) continue;
      transfers.send(peer, texts[comm_.rank_].data(), kLongest);
      transfers.receive(peer, texts[peer].data(), kLongest);
    }
    transfers.wait(call_);
    const std::string reason = fmt::format("ranks called different things: rank 0 {}, rank {} {}",
                                           texts[0].data(), odd, texts[odd].data());
    comm_.job_.failures.fail(comm_.group_.lineage.back(), reason);
    throw CommError(fmt::format("{} (rank {} was in {})", reason, comm_.rank_, own));
  }

  void check_pieces() {
    const auto amount = [](std::int64_t bytes) {
      return bytes < 0 ? std::string("nothing") : fmt::format("{} bytes", bytes);
    };
    const auto check = [&](std::int64_t sent, int from, std::int64_t expected, int to) {
      if (sent == expected) return;
      const std::string reason =
          fmt::format("exchange: rank {} sends {} to rank {}, but rank {} expects {} from it", from,
                      amount(sent), to, to, amount(expected));
      comm_.abort(reason);
      throw CommError(fmt::format("{} (rank {} was in it)", reason, comm_.rank_));
    };
    for (int peer = 0; peer < static_cast<int>(in_.size()); ++peer) {
      check(in_[peer].sends, peer, out_[peer].expects, comm_.rank_);
      check(out_[peer].sends, comm_.rank_, in_[peer].expects, peer);
    }
  }

  MpiCommunicator& comm_;
  const Call& call_;
  bool finished_ = false;
  std::vector<Header> out_, in_;
  MpiTransfers transfers_;  // after the headers, which it lets go of first
};

/// Headers and pieces on their way.
class MpiCommunicator::StartedExchange final : public Pending {
 public:
  StartedExchange(MpiCommunicator& comm, const Call& call)
      : comm_(comm), call_(call), meeting_(comm, call), pieces_(comm, false) {
    for (int peer = 0; peer < comm.size(); ++peer) {
      const Message* to = call.to[peer];
      const Message* from = call.from[peer];
      if (peer == comm.rank_) {
        const bool fits = to != nullptr && from != nullptr && to->bytes == from->bytes;
        if (fits) copy_bytes(from->data, to->data, static_cast<std::int64_t>(to->bytes));
        continue;
      }
      if (to != nullptr) pieces_.send(peer, to->data, to->bytes);
      if (from != nullptr) pieces_.receive(peer, from->data, from->bytes);
    }
  }
  ~StartedExchange() override {
    if (!finished_) comm_.abort(fmt::format("rank {} left an exchange unfinished", comm_.rank_));
  }
  void finish() override {
    finished_ = true;
    static_cast<void>(meeting_.finish());
    pieces_.wait(call_);
  }

 private:
  MpiCommunicator& comm_;
  const Call& call_;
  Meeting meeting_;
  MpiTransfers pieces_;
  bool finished_ = false;
};

MpiCommunicator::MpiCommunicator(MpiJob& job, MpiGroup group, int rank)
    : job_(job), group_(std::move(group)), rank_(rank), next_group_(group_.lineage.back() + 1) {
  std::uint32_t newest = job_.newest_group;
  while (newest < group_.lineage.back() &&
         !job_.newest_group.compare_exchange_weak(newest, group_.lineage.back())) {
  }
}

MpiCommunicator::~MpiCommunicator() {
  // The first group of a rank ends when its work does; that of the processes outlives all letters.
  if (group_.lineage.size() > 1 || group_.lineage.back() == 0 || is_part()) return;
  show("end", -1);
  if (size() == 1) return;
  try {
    job_.tell_leaving(group_.places, group_.lineage.back(), group_.places[rank_]);
  } catch (const CommError&) {  // NOLINT(bugprone-empty-catch): the others see that it is gone
  }
}

int MpiCommunicator::tag(int from, int to, bool header) const {
  constexpr std::uint32_t kSlots = max_slots;
  const auto slot = [&](int rank) { return static_cast<std::uint32_t>(group_.places[rank].slot); };
  const std::uint32_t channel =
      group_.lineage.back() * channels_of_group + (is_part() ? 2U : 0U) + (header ? 1U : 0U);
  return static_cast<int>((channel * kSlots + slot(from)) * kSlots + slot(to));
}

void MpiCommunicator::check(const std::string& call) const {
  std::string reason = job_.failures.of(group_.lineage);
  if (reason.empty()) {
    const int left = job_.failures.left(group_.lineage.front(), group_.places);
    if (left < 0) return;
    reason = fmt::format("rank {} called {}, but rank {} has left the group", rank_, call, left);
  }
  throw OthersFailed(fmt::format("{} (rank {} was in {})", reason, rank_, call));
}

void MpiCommunicator::wait_until(const std::string& what, const std::function<bool()>& done) {
  struct Wait {
    Wait(Watch* watch, int slot) : watch_(watch), slot_(slot) {
      if (watch_ != nullptr) watch_->begin_wait(slot_);
    }
    ~Wait() {
      if (watch_ != nullptr) watch_->end_wait(slot_);
    }
    Watch* watch_;
    int slot_;
  };
  const Wait wait(job_.watch, group_.places[rank_].slot);
  Backoff backoff;
  while (!done()) {
    check(what);
    if (job_.mail.poll()) backoff.reset();
    backoff.pause();
  }
}

void MpiCommunicator::show(const char* phase, std::int64_t place) {
  if (job_.watch != nullptr) job_.watch->show(group_.places[rank_].slot, rank_, phase, place);
}

void MpiCommunicator::show_device(const std::string& name) {
  if (job_.watch != nullptr) job_.watch->show_device(group_.places[rank_].slot, name);
}

void MpiCommunicator::abort(const std::string& reason) {
  job_.tell_failure(is_part() ? group_.whole : group_.places, group_.lineage.back(), reason);
}

std::unique_ptr<Communicator> MpiCommunicator::part(std::span<const int> ranks) const {
  MpiGroup group = {{}, group_.lineage, group_.places};
  for (const int rank : ranks)
    group.places.push_back(group_.places.at(static_cast<std::size_t>(rank)));
  const auto own = std::find(ranks.begin(), ranks.end(), rank_);
  if (is_part() || own == ranks.end()) {
    throw CommError(fmt::format("rank {} makes a group that it is no part of", rank_));
  }
  return std::make_unique<MpiCommunicator>(job_, std::move(group),
                                           static_cast<int>(own - ranks.begin()));
}

std::unique_ptr<Communicator::Pending> MpiCommunicator::start(Call& call) {
  return std::make_unique<StartedExchange>(*this, call);
}

void MpiCommunicator::perform(Call& call) {
  if (call.kind == CallKind::exchange) {
    StartedExchange(*this, call).finish();
    return;
  }
  Meeting meeting(*this, call);
  if (call.count > 0) {
    const std::vector<Range> pieces = pieces_of(call, size());
    auto* receive = static_cast<std::byte*>(call.receive);
    if (call.kind == CallKind::all_gather) {
      gather(meeting, call, call.send, pieces);
    } else if (call.kind == CallKind::reduce_scatter) {
      combine_own(meeting, call, pieces, receive);
    } else {
      // Each rank combines one part for all, so that all get the same bits.
      receive += pieces[rank_].begin;
      combine_own(meeting, call, pieces, receive);
      gather(meeting, call, receive, pieces);
    }
  }
  static_cast<void>(meeting.finish());
}

/// Every rank's piece to every rank.
void MpiCommunicator::gather(Meeting& meeting, const Call& call, const void* own,
                             const std::vector<Range>& pieces) {
  auto* all = static_cast<std::byte*>(call.receive);
  MpiTransfers transfers(*this, false);
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank_) continue;
    transfers.send(peer, own, static_cast<std::size_t>(pieces[rank_].size()));
    transfers.receive(peer, all + pieces[peer].begin,
                      static_cast<std::size_t>(pieces[peer].size()));
  }
  if (pieces[rank_].size() > 0) {
    copy_bytes(all + pieces[rank_].begin, own, pieces[rank_].size());
  }
  static_cast<void>(meeting.finish());
  transfers.wait(call);
}

/// Every rank's part of what is to be this rank's piece, combined in rank order.
void MpiCommunicator::combine_own(Meeting& meeting, const Call& call,
                                  const std::vector<Range>& pieces, void* result) {
  const auto* send = static_cast<const std::byte*>(call.send);
  const std::int64_t bytes = pieces[rank_].size();
  std::vector<double> parts(static_cast<std::size_t>((bytes + 7) / 8 * size()));
  std::vector<const void*> inputs;
  MpiTransfers transfers(*this, false);
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank_) {
      inputs.push_back(bytes > 0 ? send + pieces[rank_].begin : nullptr);
      continue;
    }
    inputs.push_back(parts.data() + peer * ((bytes + 7) / 8));
    transfers.send(peer, send + pieces[peer].begin, static_cast<std::size_t>(pieces[peer].size()));
    transfers.receive(peer, parts.data() + peer * ((bytes + 7) / 8),
                      static_cast<std::size_t>(bytes));
  }
  static_cast<void>(meeting.finish());
  transfers.wait(call);
  void* const outputs[] = {result};
  const std::int64_t count = bytes / static_cast<std::int64_t>(size_of(call.type));
  if (count > 0) combine(inputs, outputs, 0, count, call.type, call.reduction);
}

std::unique_ptr<Communicator> MpiCommunicator::split(int color, int key) {
  Call call;
  call.kind = CallKind::split;
  call.color = color;
  call.key = key;
  Meeting meeting(*this, call);
  const std::vector<Header>& asked = meeting.finish();
  std::vector<int> order(asked.size());
  for (int r = 0; r < size(); ++r) order[r] = r;
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return std::pair(asked[a].color, asked[a].key) < std::pair(asked[b].color, asked[b].key);
  });
  std::uint32_t number = 0;
  for (const Header& header : asked) number = std::max(number, header.next_group);
  MpiGroup group;
  group.lineage = group_.lineage;
  int place = 0;
  std::uint32_t next = number;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const int r = order[i];
    const bool first = i == 0 || asked[r].color != asked[order[i - 1]].color;
    if (asked[r].color == color) {
      if (first) group.lineage.push_back(next);
      if (r == rank_) place = static_cast<int>(group.places.size());
      group.places.push_back(group_.places[r]);
    }
    if (first) ++next;
  }
  next_group_ = next;
  if (next > job_.most_groups) {
    throw CommError(fmt::format("{} groups of ranks were made; this MPI has room for {}", next,
                                job_.most_groups));
  }
  auto part = std::make_unique<MpiCommunicator>(job_, std::move(group), place);
  part->next_group_ = next;
  return part;
}

}  // namespace spdnn::comm
