// What all communicators ask of a call before other ranks see it: arguments that make sense, and an
// account of the bytes it sends.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "group.hpp"

namespace spdnn::comm {

/// Elements that a call may have together.
inline constexpr std::int64_t max_elements = std::numeric_limits<std::int64_t>::max() / 8;

/// The elements of rank `rank` where `count` are shared by `ranks` as evenly as can be.
[[nodiscard]] Range even_piece(std::int64_t count, int ranks, int rank);

class CheckedCommunicator : public Communicator {
 public:
  [[nodiscard]] std::int64_t bytes_sent() const final { return bytes_sent_; }

 protected:
  // Calls with these arguments, as far as one rank can tell that they make sense, and the bytes
  // that they send; otherwise the group fails. Spans and messages must live as long as the call.
  [[nodiscard]] Call gather_call(const void* send, void* receive,
                                 std::span<const std::int64_t> counts, DType type);
  [[nodiscard]] Call reduce_call(const void* send, void* receive, std::int64_t count, DType type,
                                 Reduction reduction);
  [[nodiscard]] Call scatter_call(const void* send, void* receive,
                                  std::span<const std::int64_t> counts, DType type,
                                  Reduction reduction);
  [[nodiscard]] Call exchange_call(std::span<const Message> sends,
                                   std::span<const Message> receives);

  void account(std::int64_t bytes) { bytes_sent_ += bytes; }

 private:
  /// Fails the group: a call that makes no sense on one rank leaves the others nothing to wait for.
  [[noreturn]] void reject(const Call& call, const std::string& why);
  void check_counts(Call& call, std::span<const std::int64_t> counts);
  void check_reduction(const Call& call);
  void check_memory(const Call& call, const void* data, std::int64_t elements);
  void check_messages(const Call& call, std::span<const Message> messages,
                      std::vector<const Message*>& by_peer);

  std::int64_t bytes_sent_ = 0;
};

}  // namespace spdnn::comm
