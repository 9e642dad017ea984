// Collectives between GPUs through NCCL, beside a communicator of the same ranks for all that NCCL
// has not.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "checked.hpp"
#include "nccl_api.hpp"

namespace spdnn::comm {

/// One rank's end of a group whose ranks each have a CUDA device of their own: NCCL refuses two
/// ranks on one.
///
/// Calls with a CUDA stream go through NCCL; all ranks give one, or none does. Those on host
/// memory, and reductions NCCL has not (bits, 16-bit integers), are the host communicator's, which
/// stages device memory. NCCL does not promise the order that elements are combined in: all ranks
/// get the same bits of an all_reduce, but other bits than the sum in rank order, and which NaN or
/// whether one survives max and min is its affair.
///
/// Before each call the ranks meet on the host: a rank that failed, left, or calls something else
/// is found by the host communicator and named, where NCCL would wait for ever on the device. A
/// call returns when its work is done; an exchange that is started runs beside the caller's
/// stream, once every rank has started its own. What NCCL does not get done in `patience_s` fails
/// the group, and its kernels are ended (ncclCommAbort).
class NcclCommunicator final : public CheckedCommunicator {
 public:
  /// Connects the ranks of `host`, which must live as long; all of them call this, each with its
  /// device current and a stream of that device that it leaves to this. `nccl` must live as long.
  /// Throws `CommError` on all ranks, with those that did not connect and why.
  NcclCommunicator(Communicator& host, std::shared_ptr<Stream> stream, const NcclFunctions& nccl,
                   double patience_s);
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;
  ~NcclCommunicator() override;

  [[nodiscard]] int rank() const override { return host_.rank(); }
  [[nodiscard]] int size() const override { return host_.size(); }
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
  [[nodiscard]] bool reaches_devices() const override { return true; }
  /// Splits the host communicator and connects the new group anew.
  [[nodiscard]] std::unique_ptr<Communicator> split(int color, int key) override;
  void abort(const std::string& reason) override;
  void show(const char* phase, std::int64_t place) override { host_.show(phase, place); }
  void show_device(const std::string& name) override { host_.show_device(name); }

 private:
  class Exchange;
  /// Queues NCCL calls; the first result that is an error.
  using Enqueue = std::function<NcclResult()>;

  NcclCommunicator(std::unique_ptr<Communicator> host, std::shared_ptr<Stream> stream,
                   const NcclFunctions& nccl, double patience_s);
  void connect();
  void report_connection(NcclResult own);
  void drop() noexcept;
  [[nodiscard]] bool end_quietly();
  void meeting(const std::function<void()>& function);
  void on_host(const std::function<void()>& function);
  void meet(const Call& call);
  void compare_pieces(const Call& call);
  [[nodiscard]] std::unique_ptr<Event> issue(const Call& call, Stream& stream,
                                             const Enqueue& enqueue);
  void perform(const Call& call, Stream& stream, const Enqueue& enqueue);
  void wait(const std::string& what, const std::function<bool()>& done);
  [[nodiscard]] NcclResult state() const;
  void check(NcclResult result, const std::string& what);
  [[noreturn]] void fail(const std::string& reason);

  std::unique_ptr<Communicator> own_host_;  ///< of a group made by `split`
  Communicator& host_;
  std::shared_ptr<Stream> stream_;
  const NcclFunctions& nccl_;
  double patience_s_;
  NcclComm* comm_ = nullptr;  ///< null once the group has failed
};

}  // namespace spdnn::comm
