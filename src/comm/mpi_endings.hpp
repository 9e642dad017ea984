// How processes end together when one of them failed: one speaks, and all return the same status.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "mpi_job.hpp"

namespace spdnn::comm {

/// What the processes tell each other of their ends. Thread-safe.
class Endings {
 public:
  struct Told {
    bool own = false;  ///< the error is its own, rather than that others failed
    ExitStatus status = ExitStatus::failure;
  };
  Endings(MpiJob& job, int process, int processes);
  Endings(const Endings&) = delete;
  Endings& operator=(const Endings&) = delete;
  ~Endings();

  /// Tells how this process ended, and `reason` to those that still work; waits a few seconds at
  /// most for all of the others. The first of those with an error of their own speaks.
  [[nodiscard]] World::Ending conclude(const Told& told, const std::string& reason);
  [[nodiscard]] bool concluding() const { return concluding_; }
  /// A process will tell nothing any more.
  void bury(int process);
  /// Whether a process has told how it ended, or is buried.
  [[nodiscard]] bool has_told(int process);

 private:
  [[nodiscard]] bool all_told();

  MpiJob& job_;
  int process_;
  std::atomic<bool> concluding_{false};
  std::mutex mutex_;
  std::vector<std::optional<Told>> told_;  ///< by process
  std::vector<bool> buried_;
};

}  // namespace spdnn::comm
