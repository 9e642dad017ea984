// Checks, staging and accounts around the calls of a communicator that works on host memory.
#include "host_communicator.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "combine.hpp"

namespace spdnn::comm {

Range even_piece(std::int64_t count, int ranks, int rank) {
  const std::int64_t each = count / ranks;
  const std::int64_t more = count % ranks;
  const std::int64_t begin = each * rank + std::min<std::int64_t>(more, rank);
  return {begin, begin + each + (rank < more ? 1 : 0)};
}

void HostCommunicator::account(Call& call, std::int64_t bytes) {
  call.bytes = bytes;
  bytes_sent_ += bytes;
}

void HostCommunicator::reject(const Call& call, const std::string& why) {
  const std::string reason = fmt::format("rank {} called {}: {}", rank(), describe(call), why);
  abort(reason);
  throw CommError(reason);
}

void HostCommunicator::check_counts(Call& call, std::span<const std::int64_t> counts) {
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

void HostCommunicator::check_reduction(const Call& call) {
  if (call.count < 0 || call.count > max_elements) {
    reject(call, fmt::format("a count of {}; allowed are 0 to {}", call.count, max_elements));
  }
  if (!can_combine(call.type, call.reduction)) reject(call, "bits are combined of integers only");
}

void HostCommunicator::check_memory(const Call& call, const void* data, std::size_t bytes) {
  if (data == nullptr && bytes > 0) reject(call, fmt::format("no memory for {} bytes", bytes));
}

void HostCommunicator::check_messages(const Call& call, std::span<const Message> messages,
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

void HostCommunicator::barrier() {
  Call call;
  call.kind = CallKind::barrier;
  perform(call);
}

void HostCommunicator::all_gather(const void* send, void* receive,
                                  std::span<const std::int64_t> counts, DType type,
                                  Stream* stream) {
  Call call;
  call.kind = CallKind::all_gather;
  call.type = type;
  check_counts(call, counts);
  const std::size_t width = size_of(type);
  const std::size_t own = static_cast<std::size_t>(counts[rank()]) * width;
  const std::size_t all = static_cast<std::size_t>(call.count) * width;
  check_memory(call, send, own);
  check_memory(call, receive, all);
  Staging staging(stream);
  call.send = staging.input(send, own);
  call.receive = staging.output(receive, all);
  staging.begin();
  account(call, static_cast<std::int64_t>(own) * (size() - 1));
  perform(call);
  staging.end();
}

void HostCommunicator::all_reduce(const void* send, void* receive, std::int64_t count, DType type,
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
  const std::int64_t own = even_piece(count, size(), rank()).size();
  account(call, (count - own + own * (size() - 1)) * static_cast<std::int64_t>(size_of(type)));
  perform(call);
  staging.end();
}

void HostCommunicator::reduce_scatter(const void* send, void* receive,
                                      std::span<const std::int64_t> counts, DType type,
                                      Reduction reduction, Stream* stream) {
  Call call;
  call.kind = CallKind::reduce_scatter;
  call.type = type;
  call.reduction = reduction;
  check_counts(call, counts);
  check_reduction(call);
  const std::size_t width = size_of(type);
  const std::int64_t own = counts[rank()];
  const std::size_t all = static_cast<std::size_t>(call.count) * width;
  check_memory(call, send, all);
  check_memory(call, receive, static_cast<std::size_t>(own) * width);
  Staging staging(stream);
  call.send = staging.input(send, all);
  call.receive = staging.output(receive, static_cast<std::size_t>(own) * width);
  staging.begin();
  account(call, (call.count - own) * static_cast<std::int64_t>(width));
  perform(call);
  staging.end();
}

/// An exchange, and the memory it works on until it is finished.
class HostCommunicator::StagedExchange final : public Pending {
 public:
  StagedExchange(HostCommunicator& comm, std::span<const Message> sends,
                 std::span<const Message> receives, Stream* stream)
      : sends_(sends.begin(), sends.end()),
        receives_(receives.begin(), receives.end()),
        staging_(stream) {
    call_.kind = CallKind::exchange;
    comm.check_messages(call_, sends_, call_.to);
    comm.check_messages(call_, receives_, call_.from);
    std::int64_t bytes = 0;
    for (Message& message : sends_) {
      // Messages have one type for both ways; what is sent is only read.
      message.data = const_cast<void*>(staging_.input(message.data, message.bytes));
      if (message.peer != comm.rank()) bytes += static_cast<std::int64_t>(message.bytes);
    }
    for (Message& message : receives_) {
      message.data = staging_.output(message.data, message.bytes);
    }
    staging_.begin();
    comm.account(call_, bytes);
  }
  void perform(HostCommunicator& comm) {
    comm.perform(call_);
    staging_.end();
  }
  void start(HostCommunicator& comm) { started_ = comm.start(call_); }
  void finish() override {
    const std::unique_ptr<Pending> started = std::move(started_);
    started->finish();
    staging_.end();
  }

 private:
  std::vector<Message> sends_, receives_;
  Staging staging_;
  Call call_;
  std::unique_ptr<Pending> started_;
};

std::unique_ptr<Communicator::Pending> HostCommunicator::start_exchange(
    std::span<const Message> sends, std::span<const Message> receives, Stream* stream) {
  auto exchange = std::make_unique<StagedExchange>(*this, sends, receives, stream);
  exchange->start(*this);
  return exchange;
}

void HostCommunicator::exchange(std::span<const Message> sends, std::span<const Message> receives,
                                Stream* stream) {
  StagedExchange(*this, sends, receives, stream).perform(*this);
}

}  // namespace spdnn::comm
