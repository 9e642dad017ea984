// Calls of a communicator between the beginning and the end of a wait.
#include "paced.hpp"

#include <utility>

namespace spdnn::train {
namespace {

class Waiting {
 public:
  explicit Waiting(Pace& pace) : pace_(pace) { pace_.begin_wait(); }
  ~Waiting() { pace_.end_wait(); }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  Pace& pace_;
};

class PacedPending final : public Communicator::Pending {
 public:
  PacedPending(std::unique_ptr<Pending> pending, Pace& pace)
      : pending_(std::move(pending)), pace_(pace) {}
  void finish() override {
    const Waiting waiting(pace_);
    pending_->finish();
  }
  [[nodiscard]] const void* lent(int peer) const override { return pending_->lent(peer); }

 private:
  std::unique_ptr<Pending> pending_;
  Pace& pace_;
};

}  // namespace

void PacedCommunicator::barrier() {
  const Waiting waiting(pace_);
  comm_.barrier();
}

void PacedCommunicator::all_gather(const void* send, void* receive,
                                   std::span<const std::int64_t> counts, DType type,
                                   Stream* stream) {
  const Waiting waiting(pace_);
  comm_.all_gather(send, receive, counts, type, stream);
}

void PacedCommunicator::all_reduce(const void* send, void* receive, std::int64_t count, DType type,
                                   Reduction reduction, Stream* stream) {
  const Waiting waiting(pace_);
  comm_.all_reduce(send, receive, count, type, reduction, stream);
}

void PacedCommunicator::reduce_scatter(const void* send, void* receive,
                                       std::span<const std::int64_t> counts, DType type,
                                       Reduction reduction, Stream* stream) {
  const Waiting waiting(pace_);
  comm_.reduce_scatter(send, receive, counts, type, reduction, stream);
}

void PacedCommunicator::exchange(std::span<const Message> sends, std::span<const Message> receives,
                                 Stream* stream) {
  const Waiting waiting(pace_);
  comm_.exchange(sends, receives, stream);
}

std::unique_ptr<Communicator::Pending> PacedCommunicator::start_exchange(
    std::span<const Message> sends, std::span<const Message> receives, Stream* stream) {
  const Waiting waiting(pace_);
  return std::make_unique<PacedPending>(comm_.start_exchange(sends, receives, stream), pace_);
}

std::unique_ptr<Communicator> PacedCommunicator::split(int color, int key) {
  const Waiting waiting(pace_);
  return std::unique_ptr<Communicator>(new PacedCommunicator(comm_.split(color, key), pace_));
}

}  // namespace spdnn::train
