// The calls of a communicator as NCCL has them: pieces of unlike sizes become groups of calls with
// a root each, exchanges groups of sends and receives.
#include "nccl.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace spdnn::comm {
namespace {

bool on_device(Stream* stream) { return stream != nullptr && stream->native() != nullptr; }

std::optional<NcclType> type_of(DType type) {
  switch (type) {
    case DType::f32: return NcclType::f32;
    case DType::f64: return NcclType::f64;
    case DType::u8: return NcclType::u8;
    case DType::u16: return std::nullopt;
    case DType::u32: return NcclType::u32;
    case DType::i32: return NcclType::i32;
    case DType::i64: return NcclType::i64;
  }
  return std::nullopt;
}

std::optional<NcclOp> op_of(Reduction reduction) {
  switch (reduction) {
    case Reduction::sum: return NcclOp::sum;
    case Reduction::max: return NcclOp::max;
    case Reduction::min: return NcclOp::min;
    case Reduction::bit_or:
    case Reduction::bit_and: break;
  }
  return std::nullopt;
}

bool reduces(DType type, Reduction reduction) { return type_of(type) && op_of(reduction); }

/// One size for all: what NCCL has a call of its own for, which is faster than one a piece.
bool even(std::span<const std::int64_t> counts) {
  return std::all_of(counts.begin(), counts.end(),
                     [&](std::int64_t count) { return count == counts[0]; });
}

/// Calls `enqueue(root, count, bytes before)` for each piece that is not empty.
template <class Function>
NcclResult for_each_piece(std::span<const std::int64_t> counts, DType type,
                          const Function& enqueue) {
  std::size_t before = 0;
  for (std::size_t root = 0; root < counts.size(); ++root) {
    const auto count = static_cast<std::size_t>(counts[root]);
    if (count == 0) continue;
    const NcclResult result = enqueue(static_cast<int>(root), count, before);
    if (result != NcclResult::success && result != NcclResult::in_progress) return result;
    before += count * size_of(type);
  }
  return NcclResult::success;
}

}  // namespace

void NcclCommunicator::barrier() {
  Call call;
  call.kind = CallKind::barrier;
  meet(call);
}

void NcclCommunicator::all_gather(const void* send, void* receive,
                                  std::span<const std::int64_t> counts, DType type,
                                  Stream* stream) {
  if (!on_device(stream)) {
    on_host([&] { host_.all_gather(send, receive, counts, type, stream); });
    return;
  }
  perform(gather_call(send, receive, counts, type), *stream, [&] {
    // Bytes, for elements are not looked at.
    const std::size_t width = size_of(type);
    if (even(counts)) {
      return nccl_.all_gather(send, receive, static_cast<std::size_t>(counts[0]) * width,
                              NcclType::u8, comm_, stream_->native());
    }
    return for_each_piece(counts, type, [&](int root, std::size_t count, std::size_t before) {
      return nccl_.broadcast(send, static_cast<std::byte*>(receive) + before, count * width,
                             NcclType::u8, root, comm_, stream_->native());
    });
  });
}

void NcclCommunicator::all_reduce(const void* send, void* receive, std::int64_t count, DType type,
                                  Reduction reduction, Stream* stream) {
  if (!on_device(stream) || !reduces(type, reduction)) {
    on_host([&] { host_.all_reduce(send, receive, count, type, reduction, stream); });
    return;
  }
  perform(reduce_call(send, receive, count, type, reduction), *stream, [&] {
    return nccl_.all_reduce(send, receive, static_cast<std::size_t>(count), *type_of(type),
                            *op_of(reduction), comm_, stream_->native());
  });
}

void NcclCommunicator::reduce_scatter(const void* send, void* receive,
                                      std::span<const std::int64_t> counts, DType type,
                                      Reduction reduction, Stream* stream) {
  if (!on_device(stream) || !reduces(type, reduction)) {
    on_host([&] { host_.reduce_scatter(send, receive, counts, type, reduction, stream); });
    return;
  }
  perform(scatter_call(send, receive, counts, type, reduction), *stream, [&] {
    if (even(counts)) {
      return nccl_.reduce_scatter(send, receive, static_cast<std::size_t>(counts[0]),
                                  *type_of(type), *op_of(reduction), comm_, stream_->native());
    }
    return for_each_piece(counts, type, [&](int root, std::size_t count, std::size_t before) {
      return nccl_.reduce(static_cast<const std::byte*>(send) + before, receive, count,
                          *type_of(type), *op_of(reduction), root, comm_, stream_->native());
    });
  });
}

/// An exchange under way. The messages are copied: the caller's list may be gone.
class NcclCommunicator::Exchange final : public Pending {
 public:
  Exchange(NcclCommunicator& comm, std::span<const Message> sends,
           std::span<const Message> receives, Stream& stream)
      : comm_(comm),
        sends_(sends.begin(), sends.end()),
        receives_(receives.begin(), receives.end()),
        call_(comm.exchange_call(sends_, receives_)),
        done_(comm.issue(call_, stream, [this] { return enqueue(); })) {}
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  ~Exchange() override {
    if (done_ == nullptr) return;
    // Ending the kernels comes first: the pieces' memory may go after this.
    comm_.drop();
    try {
      comm_.host_.abort(fmt::format("rank {} left an exchange unfinished", comm_.rank()));
    } catch (const std::exception&) {
      // The group has failed already.
    }
  }
  void finish() override {
    const std::unique_ptr<Event> done = std::move(done_);
    comm_.wait(describe(call_), [&] { return done->ready(); });
  }

 private:
  NcclResult enqueue() {
    NcclResult result = NcclResult::success;
    const auto ok = [&] {
      return result == NcclResult::success || result == NcclResult::in_progress;
    };
    void* const stream = comm_.stream_->native();
    for (const Message& piece : sends_) {
      if (!ok() || piece.bytes == 0) continue;
      result =
          comm_.nccl_.send(piece.data, piece.bytes, NcclType::u8, piece.peer, comm_.comm_, stream);
    }
    for (const Message& piece : receives_) {
      if (!ok() || piece.bytes == 0) continue;
      result = comm_.nccl_.receive(piece.data, piece.bytes, NcclType::u8, piece.peer, comm_.comm_,
                                   stream);
    }
    return result;
  }

  NcclCommunicator& comm_;
  std::vector<Message> sends_, receives_;
  Call call_;
  std::unique_ptr<Event> done_;  ///< null once finished
};

std::unique_ptr<Communicator::Pending> NcclCommunicator::start_exchange(
    std::span<const Message> sends, std::span<const Message> receives, Stream* stream) {
  if (on_device(stream)) return std::make_unique<Exchange>(*this, sends, receives, *stream);
  const std::int64_t before = host_.bytes_sent();
  auto pending = host_.start_exchange(sends, receives, stream);
  account(host_.bytes_sent() - before);
  return pending;
}

void NcclCommunicator::exchange(std::span<const Message> sends, std::span<const Message> receives,
                                Stream* stream) {
  if (on_device(stream)) {
    Exchange(*this, sends, receives, *stream).finish();
  } else {
    on_host([&] { host_.exchange(sends, receives, stream); });
  }
}

std::unique_ptr<Communicator> NcclCommunicator::split(int color, int key) {
  Call call;
  call.kind = CallKind::split;
  meet(call);
  std::unique_ptr<Communicator> group;
  on_host([&] { group = host_.split(color, key); });
  return std::unique_ptr<Communicator>(
      new NcclCommunicator(std::move(group), stream_, nccl_, patience_s_));
}

}  // namespace spdnn::comm
