// Staging around the calls of a communicator that works on host memory.
#include "host_communicator.hpp"

namespace spdnn::comm {

void HostCommunicator::barrier() {
  Call call;
  call.kind = CallKind::barrier;
  perform(call);
}

/// Performs a call on so many elements of this rank's memory.
void HostCommunicator::perform_staged(Call& call, std::int64_t sent, std::int64_t received,
                                      Stream* stream) {
  const std::size_t width = size_of(call.type);
  Staging staging(stream);
  call.send = staging.input(call.send, static_cast<std::size_t>(sent) * width);
  call.receive = staging.output(call.receive, static_cast<std::size_t>(received) * width);
  staging.begin();
  account(call.bytes);
  perform(call);
  staging.end();
}

void HostCommunicator::all_gather(const void* send, void* receive,
                                  std::span<const std::int64_t> counts, DType type,
                                  Stream* stream) {
  Call call = gather_call(send, receive, counts, type);
  perform_staged(call, counts[rank()], call.count, stream);
}

void HostCommunicator::all_reduce(const void* send, void* receive, std::int64_t count, DType type,
                                  Reduction reduction, Stream* stream) {
  Call call = reduce_call(send, receive, count, type, reduction);
  perform_staged(call, count, count, stream);
}

void HostCommunicator::reduce_scatter(const void* send, void* receive,
                                      std::span<const std::int64_t> counts, DType type,
                                      Reduction reduction, Stream* stream) {
  Call call = scatter_call(send, receive, counts, type, reduction);
  perform_staged(call, call.count, counts[rank()], stream);
}

/// An exchange, and the memory it works on until it is finished.
class HostCommunicator::StagedExchange final : public Pending {
 public:
  StagedExchange(HostCommunicator& comm, std::span<const Message> sends,
                 std::span<const Message> receives, Stream* stream)
      : sends_(sends.begin(), sends.end()),
        receives_(receives.begin(), receives.end()),
        staging_(stream),
        call_(comm.exchange_call(sends_, receives_)) {
    if (staging_.copies()) {  // what is lent is read on the host
      for (Message& message : sends_) message.owner = nullptr;
      for (Message& message : receives_) message.owner = nullptr;
    }
    for (Message& message : sends_) {
      // Messages have one type for both ways; what is sent is only read.
      message.data = const_cast<void*>(staging_.input(message.data, message.bytes));
    }
    for (Message& message : receives_) {
      message.data = staging_.output(message.data, message.bytes);
    }
    staging_.begin();
    comm.account(call_.bytes);
  }
  void perform(HostCommunicator& comm) {
    comm.perform(call_);
    staging_.end();
  }
  void start(HostCommunicator& comm) { started_ = comm.start(call_); }
  void finish() override {
    started_->finish();
    staging_.end();
  }
  [[nodiscard]] const void* lent(int peer) const override { return started_->lent(peer); }

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
