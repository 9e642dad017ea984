// NCCL without GPUs: functions that do what NCCL's documentation says, between threads of this
// process, on host memory that stands for that of devices. As NCCL's, they return before their work
// is done, which goes on when a stream is looked at; calls that do not fit are errors.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nccl.hpp"
#include "spdnn/halo.hpp"
#include "support/fake_stream.hpp"

namespace spdnn::test {

/// What goes wrong on which rank of a group; −1 for none.
struct FakeFaults {
  int never_connects = -1;
  int refuses_to_connect = -1;
  int fails_to_queue = -1;  ///< its calls return an error
  int breaks_later = -1;    ///< its calls are queued, and fail then
  int loses_work = -1;      ///< its calls are never done
};

/// The functions. One user at a time.
[[nodiscard]] const comm::NcclFunctions& fake_nccl();
/// Forgets what was called, and has other faults from here on.
void reset_fake_nccl(const FakeFaults& faults = {});
/// What `rank` of groups of any size called since, in order: "start" and "end" around the calls of
/// a group that has any, and, e.g., "broadcast 12 from 3", counts in bytes.
[[nodiscard]] std::vector<std::string> nccl_calls(int rank);
/// Adds to `calls` those of an exchange of `out` and `in`, of one chunk of so many images in fp32.
void add_exchange(std::vector<std::string>& calls, const std::vector<HaloPiece>& out,
                  const std::vector<HaloPiece>& in, std::int64_t images);
/// Groups that were made and neither destroyed nor aborted.
[[nodiscard]] int open_nccl_groups();
/// How often a group was ended by abort since.
[[nodiscard]] int aborted_nccl_groups();

/// A communicator whose calls are all those of a device: what comes without a device's stream is
/// taken for memory of one.
class OnFakeDevice final : public Communicator {
 public:
  explicit OnFakeDevice(std::unique_ptr<Communicator> comm) : comm_(std::move(comm)) {}
  [[nodiscard]] int rank() const override { return comm_->rank(); }
  [[nodiscard]] int size() const override { return comm_->size(); }
  void barrier() override { comm_->barrier(); }
  void all_gather(const void* send, void* receive, std::span<const std::int64_t> counts, DType type,
                  Stream* stream) override {
    comm_->all_gather(send, receive, counts, type, of(stream));
  }
  void all_reduce(const void* send, void* receive, std::int64_t count, DType type,
                  Reduction reduction, Stream* stream) override {
    comm_->all_reduce(send, receive, count, type, reduction, of(stream));
  }
  void reduce_scatter(const void* send, void* receive, std::span<const std::int64_t> counts,
                      DType type, Reduction reduction, Stream* stream) override {
    comm_->reduce_scatter(send, receive, counts, type, reduction, of(stream));
  }
  void exchange(std::span<const Message> sends, std::span<const Message> receives,
                Stream* stream) override {
    comm_->exchange(sends, receives, of(stream));
  }
  [[nodiscard]] std::unique_ptr<Pending> start_exchange(std::span<const Message> sends,
                                                        std::span<const Message> receives,
                                                        Stream* stream) override {
    return comm_->start_exchange(sends, receives, of(stream));
  }
  [[nodiscard]] std::unique_ptr<Communicator> split(int color, int key) override {
    return std::make_unique<OnFakeDevice>(comm_->split(color, key));
  }
  void abort(const std::string& reason) override { comm_->abort(reason); }
  [[nodiscard]] std::int64_t bytes_sent() const override { return comm_->bytes_sent(); }
  [[nodiscard]] bool reaches_devices() const override { return comm_->reaches_devices(); }

 private:
  [[nodiscard]] Stream* of(Stream* stream) {
    return stream != nullptr && stream->native() != nullptr ? stream : &stream_;
  }
  FakeStream stream_;
  std::unique_ptr<Communicator> comm_;
};

/// As `run_ranks`, with ranks connected by the fake NCCL.
inline void run_nccl_ranks(int size, const std::function<void(Communicator&)>& body,
                           double patience_s = 60.0) {
  run_ranks(size, [&](Communicator& host) {
    OnFakeDevice comm(std::make_unique<comm::NcclCommunicator>(host, std::make_shared<FakeStream>(),
                                                               fake_nccl(), patience_s));
    body(comm);
  });
}

}  // namespace spdnn::test
