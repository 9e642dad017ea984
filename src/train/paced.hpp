// A communicator that keeps its rank's clock: what a call takes is waiting, neither work nor
// slowed, and work done before it is held first, so that no rank sends earlier than its device
// would.
#pragma once

#include "spdnn/comm.hpp"
#include "spdnn/pace.hpp"

namespace spdnn::train {

class PacedCommunicator final : public Communicator {
 public:
  /// Both must live as long. Used from the thread of `pace`.
  PacedCommunicator(Communicator& comm, Pace& pace) : comm_(comm), pace_(pace) {}

  [[nodiscard]] int rank() const override { return comm_.rank(); }
  [[nodiscard]] int size() const override { return comm_.size(); }
  void barrier() override;
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
  [[nodiscard]] bool reaches_devices() const override { return comm_.reaches_devices(); }
  /// The group that comes of it keeps the same clock.
  [[nodiscard]] std::unique_ptr<Communicator> split(int color, int key) override;
  void abort(const std::string& reason) override { comm_.abort(reason); }
  void show(const char* phase, std::int64_t place) override { comm_.show(phase, place); }
  void show_device(const std::string& name) override { comm_.show_device(name); }
  [[nodiscard]] std::int64_t bytes_sent() const override { return comm_.bytes_sent(); }

 private:
  PacedCommunicator(std::unique_ptr<Communicator> own, Pace& pace)
      : own_(std::move(own)), comm_(*own_), pace_(pace) {}

  std::unique_ptr<Communicator> own_;
  Communicator& comm_;
  Pace& pace_;
};

}  // namespace spdnn::train
