// A training step with divided rows: what the benchmarks of this folder time.
#pragma once

#include <optional>
#include <vector>

#include "batch_pass.hpp"

namespace spdnn::bench {

/// A group whose exchanges do nothing: what a step computes, without what it sends.
class Silent final : public Communicator {
 public:
  explicit Silent(Communicator& group) : group_(group) {}
  [[nodiscard]] int rank() const override { return group_.rank(); }
  [[nodiscard]] int size() const override { return group_.size(); }
  void barrier() override { group_.barrier(); }
  void all_gather(const void* send, void* receive, std::span<const std::int64_t> counts, DType type,
                  Stream* stream) override {
    group_.all_gather(send, receive, counts, type, stream);
  }
  void all_reduce(const void* send, void* receive, std::int64_t count, DType type,
                  Reduction reduction, Stream* stream) override {
    group_.all_reduce(send, receive, count, type, reduction, stream);
  }
  void reduce_scatter(const void* send, void* receive, std::span<const std::int64_t> counts,
                      DType type, Reduction reduction, Stream* stream) override {
    group_.reduce_scatter(send, receive, counts, type, reduction, stream);
  }
  void exchange(std::span<const Message> sends, std::span<const Message> receives,
                Stream* stream) override {
    group_.exchange(sends, receives, stream);
  }
  [[nodiscard]] std::unique_ptr<Pending> start_exchange(std::span<const Message> /*sends*/,
                                                        std::span<const Message> /*receives*/,
                                                        Stream* /*stream*/) override {
    class Nothing final : public Pending {
      void finish() override {}
    };
    return std::make_unique<Nothing>();
  }
  [[nodiscard]] std::unique_ptr<Communicator> split(int color, int key) override {
    return group_.split(color, key);
  }
  void abort(const std::string& reason) override { group_.abort(reason); }
  [[nodiscard]] std::int64_t bytes_sent() const override { return group_.bytes_sent(); }

 private:
  Communicator& group_;
};

/// A rank's device: one thread, with a core to itself where there are enough, as a run pins it.
[[nodiscard]] DeviceSpec device_of(const Communicator& comm);

/// Kernels that do nothing: what a step sends, without what it computes.
[[nodiscard]] TrainKernels<float> idle_kernels();

/// One rank's step of `batch` images, with or without work, over a group with or without exchanges.
class Step {
 public:
  /// `partition` has an entry for each of `layers`. All ranks call it.
  Step(const std::vector<train::TrainLayer>& layers, const std::vector<LayerPartition>& partition,
       std::int64_t batch, Communicator& comm, const TrainKernels<float>& kernels, Device& device,
       Stream& stream);
  void run();
  /// Until the last rank is done; and what the ranks' threads computed, on average. Where a step
  /// computes more than the same step without exchanges, no overlap can hide it.
  struct Took {
    double seconds = 0.0, cpu_s = 0.0;
  };
  [[nodiscard]] Took time();
  /// Bytes that the busiest rank sends in a step.
  [[nodiscard]] std::int64_t bytes();

 private:
  Communicator& comm_;
  Stream& stream_;
  std::int64_t inputs_, batch_;
  train::Shard shard_;
  std::optional<train::Network<float>> network_;
  std::optional<train::BatchPass<float>> pass_;
  std::vector<float> x_;
  std::vector<std::int32_t> labels_;
};

}  // namespace spdnn::bench
