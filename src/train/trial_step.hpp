// A training step with divided rows that is only timed, whole or in part.
#pragma once

#include <optional>
#include <vector>

#include "batch_pass.hpp"

namespace spdnn::train {

/// A rank of a group of which nobody else is there: the others give what it gives, and exchanges
/// bring nothing. What a rank does itself in a step, messages packed and unpacked.
class Alone final : public Communicator {
 public:
  Alone(int rank, int size) : rank_(rank), size_(size) {}
  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return size_; }
  void barrier() override {}
  void all_gather(const void* send, void* receive, std::span<const std::int64_t> counts, DType type,
                  Stream* stream) override;
  void all_reduce(const void* send, void* receive, std::int64_t count, DType type,
                  Reduction reduction, Stream* stream) override;
  void reduce_scatter(const void* send, void* receive, std::span<const std::int64_t> counts,
                      DType type, Reduction reduction, Stream* stream) override;
  void exchange(std::span<const Message> /*sends*/, std::span<const Message> /*receives*/,
                Stream* /*stream*/) override {}
  [[nodiscard]] std::unique_ptr<Pending> start_exchange(std::span<const Message> sends,
                                                        std::span<const Message> receives,
                                                        Stream* stream) override;
  [[nodiscard]] std::unique_ptr<Communicator> split(int color, int key) override;
  void abort(const std::string& reason) override { throw CommError(reason); }
  [[nodiscard]] std::int64_t bytes_sent() const override { return 0; }

 private:
  int rank_, size_;
};

/// A rank's device: one thread, with a core to itself where there are enough, as a run pins it.
[[nodiscard]] DeviceSpec core_of(const Communicator& comm);

/// The kernels of CPU ranks.
[[nodiscard]] const TrainKernels<float>& cpu_kernels();

/// One rank's step of `batch` images, with or without work, over a group with or without exchanges.
class TrialStep {
 public:
  /// All ranks call it, each with its own share.
  TrialStep(Shard shard, std::int64_t batch, Communicator& comm, const TrainKernels<float>& kernels,
            Device& device, Stream& stream);
  TrialStep(const TrialStep&) = delete;
  TrialStep& operator=(const TrialStep&) = delete;
  void run();
  /// The parts of a step, in their order.
  void forward();  ///< and the loss
  void backward();
  void update();

  [[nodiscard]] const Network<float>& network() const { return *network_; }
  [[nodiscard]] const Shard& shard() const { return shard_; }

 private:
  Stream& stream_;
  std::int64_t inputs_, batch_;
  Shard shard_;
  std::optional<Network<float>> network_;
  std::optional<BatchPass<float>> pass_;
  std::vector<float> x_;
  std::vector<std::int32_t> labels_;
};

}  // namespace spdnn::train
