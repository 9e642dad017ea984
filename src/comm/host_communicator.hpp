// What communicators that work on host memory have in common: device memory is staged.
#pragma once

#include <memory>

#include "checked.hpp"
#include "staging.hpp"

namespace spdnn::comm {

/// A communicator whose calls are performed on host memory.
class HostCommunicator : public CheckedCommunicator {
 public:
  void barrier() final;
  void all_gather(const void* send, void* receive, std::span<const std::int64_t> counts, DType type,
                  Stream* stream) final;
  void all_reduce(const void* send, void* receive, std::int64_t count, DType type,
                  Reduction reduction, Stream* stream) final;
  void reduce_scatter(const void* send, void* receive, std::span<const std::int64_t> counts,
                      DType type, Reduction reduction, Stream* stream) final;
  void exchange(std::span<const Message> sends, std::span<const Message> receives,
                Stream* stream) final;
  [[nodiscard]] std::unique_ptr<Pending> start_exchange(std::span<const Message> sends,
                                                        std::span<const Message> receives,
                                                        Stream* stream) final;

 protected:
  /// Performs any call but split. Its arguments make sense, as far as one rank can tell.
  virtual void perform(Call& call) = 0;
  /// Begins an exchange, whose call outlives what is returned.
  [[nodiscard]] virtual std::unique_ptr<Pending> start(Call& call) = 0;

 private:
  class StagedExchange;
  void perform_staged(Call& call, std::int64_t sent, std::int64_t received, Stream* stream);
};

}  // namespace spdnn::comm
