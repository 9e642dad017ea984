// What all groups of ranks in a process share: the letters between processes, and what is known of
// failures.
#pragma once

#include <mpi.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "mpi_mail.hpp"

namespace spdnn::comm {

/// Where a rank runs: which of the processes, and which of that one's ranks.
struct Place {
  int process = 0;
  int slot = 0;
  friend bool operator==(const Place&, const Place&) = default;
};
/// Ranks of a process, at most.
inline constexpr int max_slots = 64;
/// Kinds of messages that a group tells apart: pieces and headers, its own and of its parts.
inline constexpr std::uint32_t channels_of_group = 4;

/// What a process knows of failures, of single groups and of all of them. Groups are told apart by
/// a number that all their members gave them. Thread-safe.
class Failures {
 public:
  /// A group's failure is one of those split from it as well. The first reason stays.
  void fail(std::uint32_t group, const std::string& reason);
  /// Every group of this process fails, now and later.
  void fail_all(const std::string& reason);
  /// The rank at `place` makes no more calls in `group`, which was split from no other.
  void leave(std::uint32_t group, Place place);
  /// Why one of the groups failed; empty where none did.
  [[nodiscard]] std::string of(const std::vector<std::uint32_t>& groups) const;
  /// Which of `places` has left `group`, so long ago that all it sent is there; −1: none.
  [[nodiscard]] int left(std::uint32_t group, const std::vector<Place>& places) const;

 private:
  struct Left {
    Place place;
    double since;
  };
  mutable std::mutex mutex_;
  std::map<std::uint32_t, std::string> reasons_;
  std::map<std::uint32_t, std::vector<Left>> left_;
  std::string of_all_;
  std::atomic<bool> any_{false};
};

class Watch;

/// This process's part in the job.
struct MpiJob {
  /// `messages` carries what ranks send one another, `letters` what processes do.
  MpiJob(MPI_Comm messages, MPI_Comm letters, std::size_t largest_message);

  MPI_Comm messages;
  std::size_t largest_message;                 ///< bytes; longer pieces go as several
  std::uint32_t most_groups;                   ///< numbers there are for groups
  std::atomic<std::uint32_t> newest_group{0};  ///< highest number that one of this process's has
  Failures failures;
  Mail mail;
  Watch* watch = nullptr;  ///< what the ranks show is shown to it

  /// Tells the processes at `places` of a failure of `group`, or that `who` has left it.
  void tell_failure(const std::vector<Place>& places, std::uint32_t group,
                    const std::string& reason);
  void tell_leaving(const std::vector<Place>& places, std::uint32_t group, Place who);
};

/// Topics of letters below this one are the groups' own.
inline constexpr int first_topic = 16;

}  // namespace spdnn::comm
