// Checks and accounts of calls.
#include "checked.hpp"

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

void CheckedCommunicator::reject(const Call& call, const std::string& why) {
  const std::string reason = fmt::format("rank {} called {}: {}", rank(), describe(call), why);
  abort(reason);
  throw CommError(reason);
}

void CheckedCommunicator::check_counts(Call& call, std::span<const std::int64_t> counts) {
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

void CheckedCommunicator::check_reduction(const Call& call) {
  if (call.count < 0 || call.count > max_elements) {
    reject(call, fmt::format("a count of {}; allowed are 0 to {}", call.count, max_elements));
  }
  if (!can_combine(call.type, call.reduction)) reject(call, "bits are combined of integers only");
}

void CheckedCommunicator::check_memory(const Call& call, const void* data, std::int64_t elements) {
  if (data != nullptr || elements == 0) return;
  const std::size_t width = call.kind == CallKind::exchange ? 1 : size_of(call.type);
  reject(call, fmt::format("no memory for {} bytes", static_cast<std::size_t>(elements) * width));
}

void CheckedCommunicator::check_messages(const Call& call, std::span<const Message> messages,
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
    check_memory(call, message.data, static_cast<std::int64_t>(message.bytes));
  }
}

Call CheckedCommunicator::gather_call(const void* send, void* receive,
                                      std::span<const std::int64_t> counts, DType type) {
  Call call;
  call.kind = CallKind::all_gather;
  call.type = type;
  check_counts(call, counts);
  check_memory(call, send, counts[rank()]);
  check_memory(call, receive, call.count);
  call.send = send;
  call.receive = receive;
  call.bytes = counts[rank()] * (size() - 1) * static_cast<std::int64_t>(size_of(type));
  return call;
}

Call CheckedCommunicator::reduce_call(const void* send, void* receive, std::int64_t count,
                                      DType type, Reduction reduction) {
  Call call;
  call.kind = CallKind::all_reduce;
  call.type = type;
  call.reduction = reduction;
  call.count = count;
  check_reduction(call);
  check_memory(call, send, count);
  check_memory(call, receive, count);
  call.send = send;
  call.receive = receive;
  const std::int64_t own = even_piece(count, size(), rank()).size();
  call.bytes = (count - own + own * (size() - 1)) * static_cast<std::int64_t>(size_of(type));
  return call;
}

Call CheckedCommunicator::scatter_call(const void* send, void* receive,
                                       std::span<const std::int64_t> counts, DType type,
                                       Reduction reduction) {
  Call call;
  call.kind = CallKind::reduce_scatter;
  call.type = type;
  call.reduction = reduction;
  check_counts(call, counts);
  check_reduction(call);
  check_memory(call, send, call.count);
  check_memory(call, receive, counts[rank()]);
  call.send = send;
  call.receive = receive;
  call.bytes = (call.count - counts[rank()]) * static_cast<std::int64_t>(size_of(type));
  return call;
}

Call CheckedCommunicator::exchange_call(std::span<const Message> sends,
                                        std::span<const Message> receives) {
  Call call;
  call.kind = CallKind::exchange;
  check_messages(call, sends, call.to);
  check_messages(call, receives, call.from);
  for (const Message& message : sends) {
    if (message.peer != rank()) call.bytes += static_cast<std::int64_t>(message.bytes);
  }
  return call;
}

}  // namespace spdnn::comm
