// The two halves of a step: what it computes without what it sends, and the other way round.
#pragma once

#include "trial_step.hpp"

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

/// Kernels that do nothing: what a step sends, without what it computes.
[[nodiscard]] inline TrainKernels<float> idle_kernels() {
  TrainKernels<float> idle = train::cpu_kernels();
  const LinearKernels<float> nothing = {[](const ForwardArgs<float>&, Stream&) {},
                                        [](const BackwardDataArgs<float>&, Stream&) {},
                                        [](const BackwardWeightsArgs<float>&, Stream&) {}};
  idle.sparse = idle.dense = nothing;
  idle.loss_part = idle.loss = [](const LossArgs<float>&, Stream&) {};
  idle.update = [](const UpdateArgs<float>&, Stream&) {};
  return idle;
}

}  // namespace spdnn::bench
