// What communicators that work on host memory have in common: arguments checked, device memory
// staged, bytes counted.
#pragma once

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "group.hpp"
#include "staging.hpp"

namespace spdnn::comm {

/// Elements that a call may have together.
inline constexpr std::int64_t max_elements = std::numeric_limits<std::int64_t>::max() / 8;

/// The elements of rank `rank` where `count` are shared by `ranks` as evenly as can be.
[[nodiscard]] Range even_piece(std::int64_t count, int ranks, int rank);

/// A communicator whose calls are performed on host memory.
class HostCommunicator : public Communicator {
 public:
  [[nodiscard]] std::int64_t bytes_sent() const final { return bytes_sent_; }
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

  /// Fails the group: a call that makes no sense on one rank leaves the others nothing to wait for.
  [[noreturn]] void reject(const Call& call, const std::string& why);
  void check_counts(Call& call, std::span<const std::int64_t> counts);
  void check_reduction(const Call& call);
  void check_memory(const Call& call, const void* data, std::size_t bytes);
  void check_messages(const Call& call, std::span<const Message> messages,
                      std::vector<const Message*>& by_peer);

  void account(Call& call, std::int64_t bytes);

  std::int64_t bytes_sent_ = 0;
};

}  // namespace spdnn::comm
