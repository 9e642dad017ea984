// A fake NCCL in memory.
#include "support/fake_nccl.hpp"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>

#include "combine.hpp"

namespace spdnn::comm {

/// One rank's end of a group.
struct NcclComm {
  std::uint64_t group = 0;
  int rank = 0, size = 0;
  std::uint64_t collectives = 0;  ///< queued so far
  int polls = 0;                  ///< until what was queued is on its stream
  bool connected = false, broken = false;
  std::shared_ptr<bool> ended = std::make_shared<bool>(false);
  std::vector<std::function<void()>> queued;
};

}  // namespace spdnn::comm

namespace spdnn::test {
namespace {

using comm::NcclComm;
using comm::NcclFunctions;
using comm::NcclOp;
using comm::NcclResult;
using comm::NcclType;
using comm::NcclUniqueId;
using Bytes = std::vector<std::byte>;

/// A call as ranks have to agree on it.
struct Shape {
  std::string name;
  std::size_t count = 0;
  NcclType type = NcclType::u8;
  std::optional<NcclOp> op;
  int root = -1;
  friend bool operator==(const Shape&, const Shape&) = default;
};

struct Collective {
  Shape shape;
  std::vector<std::optional<Bytes>> given;  ///< by rank
  std::size_t there = 0, done = 0;
};

struct Group {
  std::vector<bool> joined;
  std::map<std::uint64_t, Collective> collectives;  ///< by number
  std::map<std::pair<int, int>, std::deque<Bytes>> mail;
};

std::mutex mutex;
std::map<std::uint64_t, Group> groups;
std::uint64_t next_group = 1;
std::map<int, std::vector<std::string>> calls;
FakeFaults faults;
int open_groups = 0, aborted_groups = 0;

DType dtype_of_nccl(NcclType type) {
  switch (type) {
    case NcclType::u8:
    case NcclType::i8: return DType::u8;
    case NcclType::i32: return DType::i32;
    case NcclType::u32: return DType::u32;
    case NcclType::i64: return DType::i64;
    case NcclType::f32: return DType::f32;
    case NcclType::f64: return DType::f64;
  }
  return DType::u8;
}
std::size_t width_of(NcclType type) { return size_of(dtype_of_nccl(type)); }

Reduction reduction_of(NcclOp op) {
  return op == NcclOp::sum ? Reduction::sum : op == NcclOp::max ? Reduction::max : Reduction::min;
}

/// Calls of this thread between group_start and group_end.
struct Queued {
  NcclComm* comm;
  FakeStream* stream;
  FakeStream::Work work;
};
thread_local int depth = 0;
thread_local int noted = 0;  ///< calls of the group, which it is noted with
thread_local std::vector<Queued> in_group;

void note(const NcclComm& comm, const std::string& call) {
  const std::lock_guard lock(mutex);
  if (noted++ == 0) calls[comm.rank].emplace_back("start");
  calls[comm.rank].push_back(call);
}

NcclResult add(NcclComm* comm, void* stream, FakeStream::Work work) {
  if (depth == 0) return NcclResult::invalid_usage;
  if (faults.fails_to_queue == comm->rank) return NcclResult::system_error;
  in_group.push_back({comm, static_cast<FakeStream*>(stream), std::move(work)});
  return NcclResult::success;
}

/// What a rank gets of a collective that all have come to.
Bytes result_of(const Collective& all, int rank) {
  const Shape& shape = all.shape;
  if (shape.name == "broadcast") return *all.given[static_cast<std::size_t>(shape.root)];
  Bytes result;
  if (shape.name == "all_gather") {
    for (const auto& piece : all.given) result.insert(result.end(), piece->begin(), piece->end());
    return result;
  }
  if (shape.root >= 0 && shape.root != rank) return result;
  result.resize(shape.count * width_of(shape.type));
  const std::size_t before = shape.name == "reduce_scatter" ? rank * result.size() : 0;
  std::vector<const void*> inputs;
  for (const auto& piece : all.given) inputs.push_back(piece->data() + before);
  const std::array<void*, 1> outputs = {result.data()};
  comm::combine(inputs, outputs, 0, static_cast<std::int64_t>(shape.count),
                dtype_of_nccl(shape.type), reduction_of(*shape.op));
  return result;
}

/// A rank's part of a collective: gives once, then asks whether all have.
NcclResult collective(NcclComm* comm, void* stream, const Shape& shape, const void* send,
                      std::size_t given, void* receive) {
  const std::size_t bytes = shape.count * width_of(shape.type);
  note(*comm,
       shape.name + fmt::format(" {}", bytes) +
           (shape.root < 0 ? "" : fmt::format(" {} {}", shape.op ? "to" : "from", shape.root)));
  const std::uint64_t number = comm->collectives++;
  bool has_given = false;
  return add(comm, stream, [=]() mutable {
    const std::lock_guard lock(mutex);
    Collective& all = groups[comm->group].collectives[number];
    if (!has_given) {
      has_given = true;
      if (all.there == 0) {
        all.shape = shape;
        all.given.resize(static_cast<std::size_t>(comm->size));
      }
      if (!(all.shape == shape)) comm->broken = true;
      const auto* from = static_cast<const std::byte*>(send);
      Bytes own;
      if (given > 0) own.assign(from, from + given);
      all.given[static_cast<std::size_t>(comm->rank)] = std::move(own);
      ++all.there;
    }
    if (all.there < all.given.size() || comm->broken) return false;
    const Bytes result = result_of(all, comm->rank);
    if (!result.empty()) std::memcpy(receive, result.data(), result.size());
    if (++all.done == all.given.size()) groups[comm->group].collectives.erase(number);
    return true;
  });
}

NcclResult get_version(int* version) {
  *version = comm::nccl_least_version;
  return NcclResult::success;
}

const char* error_string(NcclResult result) {
  switch (result) {
    case NcclResult::success: return "no error";
    case NcclResult::system_error: return "unhandled system error";
    case NcclResult::invalid_usage: return "invalid usage";
    case NcclResult::remote_error: return "remote process exited or there was a network error";
    case NcclResult::in_progress: return "NCCL operation in progress";
  }
  return "unknown result code";
}

NcclResult get_unique_id(NcclUniqueId* id) {
  const std::lock_guard lock(mutex);
  std::memcpy(id->bytes + 100, &next_group, sizeof next_group);
  ++next_group;
  return NcclResult::success;
}

NcclResult init(NcclComm** made, int size, NcclUniqueId id, int rank, comm::NcclConfig* config) {
  if (config->bytes != 24 || config->magic != 0xcafebeef || config->blocking != 0) {
    return NcclResult::invalid_usage;
  }
  if (faults.refuses_to_connect == rank) return NcclResult::system_error;
  auto own = std::make_unique<NcclComm>();
  std::memcpy(&own->group, id.bytes + 100, sizeof own->group);
  own->rank = rank;
  own->size = size;
  const std::lock_guard lock(mutex);
  ++open_groups;
  Group& group = groups[own->group];
  group.joined.resize(static_cast<std::size_t>(size));
  if (group.joined[static_cast<std::size_t>(rank)]) return NcclResult::invalid_usage;
  group.joined[static_cast<std::size_t>(rank)] = faults.never_connects != rank;
  *made = own.release();
  return NcclResult::in_progress;
}

NcclResult async_error(NcclComm* comm, NcclResult* result) {
  *result = NcclResult::in_progress;
  const std::lock_guard lock(mutex);
  if (!comm->connected) {
    for (const bool joined : groups[comm->group].joined) {
      if (!joined) return NcclResult::success;
    }
    comm->connected = true;
  }
  if (comm->polls > 0 && --comm->polls > 0) return NcclResult::success;
  for (const auto& launch : comm->queued) launch();
  comm->queued.clear();
  *result = comm->broken ? NcclResult::remote_error : NcclResult::success;
  return NcclResult::success;
}

NcclResult finalize(NcclComm* /*comm*/) { return NcclResult::in_progress; }

NcclResult destroy(NcclComm* comm) {
  const std::unique_ptr<NcclComm> gone(comm);
  const std::lock_guard lock(mutex);
  *comm->ended = true;
  --open_groups;
  return NcclResult::success;
}

NcclResult abort_group(NcclComm* comm) {
  {
    const std::lock_guard lock(mutex);
    ++aborted_groups;
  }
  return destroy(comm);
}

NcclResult group_start() {
  ++depth;
  return NcclResult::success;
}

/// Calls of a group run side by side: the stream goes on when all of them are done.
NcclResult group_end() {
  if (--depth > 0) return NcclResult::success;
  const auto work = std::make_shared<std::vector<Queued>>(std::move(in_group));
  in_group.clear();
  noted = 0;
  if (work->empty()) return NcclResult::success;
  NcclComm* const comm = work->front().comm;
  {
    const std::lock_guard lock(mutex);
    calls[comm->rank].emplace_back("end");
  }
  FakeStream* const stream = work->front().stream;
  if (faults.breaks_later == comm->rank) comm->broken = true;
  const bool lost = faults.loses_work == comm->rank;
  comm->polls = 3;
  comm->queued.push_back([=, ended = comm->ended] {
    stream->queue([=] {
      if (*ended) return true;
      std::erase_if(*work, [](Queued& call) { return call.work(); });
      return work->empty() && !lost;
    });
  });
  return NcclResult::in_progress;
}

NcclResult all_gather(const void* send, void* receive, std::size_t count, NcclType type,
                      NcclComm* comm, void* stream) {
  return collective(comm, stream, {"all_gather", count, type, std::nullopt, -1}, send,
                    count * width_of(type), receive);
}

NcclResult broadcast(const void* send, void* receive, std::size_t count, NcclType type, int root,
                     NcclComm* comm, void* stream) {
  return collective(comm, stream, {"broadcast", count, type, std::nullopt, root}, send,
                    root == comm->rank ? count * width_of(type) : 0, receive);
}

NcclResult all_reduce(const void* send, void* receive, std::size_t count, NcclType type, NcclOp op,
                      NcclComm* comm, void* stream) {
  return collective(comm, stream, {"all_reduce", count, type, op, -1}, send, count * width_of(type),
                    receive);
}

NcclResult reduce_scatter(const void* send, void* receive, std::size_t count, NcclType type,
                          NcclOp op, NcclComm* comm, void* stream) {
  return collective(comm, stream, {"reduce_scatter", count, type, op, -1}, send,
                    count * width_of(type) * static_cast<std::size_t>(comm->size), receive);
}

NcclResult reduce(const void* send, void* receive, std::size_t count, NcclType type, NcclOp op,
                  int root, NcclComm* comm, void* stream) {
  return collective(comm, stream, {"reduce", count, type, op, root}, send, count * width_of(type),
                    receive);
}

NcclResult send(const void* data, std::size_t count, NcclType type, int peer, NcclComm* comm,
                void* stream) {
  const std::size_t bytes = count * width_of(type);
  note(*comm, fmt::format("send {} to {}", bytes, peer));
  return add(comm, stream, [=] {
    const auto* from = static_cast<const std::byte*>(data);
    const std::lock_guard lock(mutex);
    groups[comm->group].mail[{comm->rank, peer}].emplace_back(from, from + bytes);
    return true;
  });
}

NcclResult receive(void* data, std::size_t count, NcclType type, int peer, NcclComm* comm,
                   void* stream) {
  const std::size_t bytes = count * width_of(type);
  note(*comm, fmt::format("receive {} from {}", bytes, peer));
  return add(comm, stream, [=] {
    const std::lock_guard lock(mutex);
    auto& mail = groups[comm->group].mail[{peer, comm->rank}];
    if (mail.empty()) return false;
    if (mail.front().size() != bytes) {
      comm->broken = true;
      return false;
    }
    std::memcpy(data, mail.front().data(), bytes);
    mail.pop_front();
    return true;
  });
}

}  // namespace

const NcclFunctions& fake_nccl() {
  static const NcclFunctions table = {
      get_version, error_string,   get_unique_id, init,      async_error, finalize,
      destroy,     abort_group,    group_start,   group_end, all_gather,  broadcast,
      all_reduce,  reduce_scatter, reduce,        send,      receive};
  return table;
}

void reset_fake_nccl(const FakeFaults& next) {
  const std::lock_guard lock(mutex);
  groups.clear();
  calls.clear();
  open_groups = aborted_groups = 0;
  faults = next;
}

std::vector<std::string> nccl_calls(int rank) {
  const std::lock_guard lock(mutex);
  return calls[rank];
}

void add_exchange(std::vector<std::string>& added, const std::vector<HaloPiece>& out,
                  const std::vector<HaloPiece>& in, std::int64_t images) {
  if (out.empty() && in.empty()) return;
  added.emplace_back("start");
  for (const HaloPiece& piece : out) {
    added.push_back(fmt::format("send {} to {}", std::ssize(piece.rows) * images * 4, piece.peer));
  }
  for (const HaloPiece& piece : in) {
    added.push_back(
        fmt::format("receive {} from {}", std::ssize(piece.rows) * images * 4, piece.peer));
  }
  added.emplace_back("end");
}

int open_nccl_groups() {
  const std::lock_guard lock(mutex);
  return open_groups;
}

int aborted_nccl_groups() {
  const std::lock_guard lock(mutex);
  return aborted_groups;
}

}  // namespace spdnn::test
