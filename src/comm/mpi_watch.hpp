// Watching the other processes: those that die, and those whose ranks make no progress.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "mpi_endings.hpp"
#include "mpi_job.hpp"

namespace spdnn::comm {

/// Every process writes signs of life to the others, in large jobs to the one before it alone: what
/// its ranks are at, and whether they wait for others. Processes of one host are also seen to die.
/// What is found fails all groups. Thread-safe.
class Watch {
 public:
  Watch(MpiJob& job, Endings& endings, int process, int processes,
        std::function<void(const std::string&)> last_resort);
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch();

  /// What a rank of this process shows, which is a beat of it.
  void show(int slot, int rank, const char* phase, std::int64_t place);
  void show_device(int slot, const std::string& name);
  /// Around a wait for other ranks, in which a rank need not make progress.
  void begin_wait(int slot) { pulses_[slot].waiting.fetch_add(1); }
  void end_wait(int slot);

  void set_patience(double seconds) { patience_ = seconds; }
  /// Whether this process stood still, now or seconds ago, for so long that the others took it for
  /// hung: they have said so, and may be gone before their letters came through.
  [[nodiscard]] bool held_up() const;
  /// What was found of the others, after a look; empty where all are well.
  [[nodiscard]] std::string finding();
  /// The work is done or given up: those that end are not missed any more.
  void stop();

 private:
  /// What is known of a rank. Signs of life hold these as they are.
  struct Sign {
    std::int32_t rank = -1;
    std::int32_t waiting = 0;
    std::int64_t place = -1;
    std::int64_t beats = 0;
    std::array<char, 24> phase{};
    std::array<char, 72> device{};
  };
  struct Pulse {
    std::atomic<std::int32_t> rank{-1}, waiting{0};
    std::atomic<std::int64_t> place{-1}, beats{0};
    std::atomic<const char*> phase{"starting"};
    std::array<char, 72> device{};  ///< written before the rank is
  };
  /// Where a process runs.
  struct Address {
    std::int64_t pid = 0;
    std::array<char, 64> host{};
  };
  /// Times are counted in looks of this process: while it does not run itself, or its letters lie
  /// unopened, nobody else grows silent.
  struct Seen {
    Sign sign;
    double stalled_s = 0.0;  ///< since its last beat, while it was to make progress
  };
  struct Neighbour {
    std::vector<Seen> ranks;
    bool heard = false;     ///< it has written
    double silent_s = 0.0;  ///< since it last wrote
  };

  void run();
  [[nodiscard]] bool stands_still() const;
  void write_signs();
  void read_signs(int from, std::span<const std::byte> letter);
  void look_for_dead();
  void open_letters();
  void look_for_hung();
  [[nodiscard]] double looked();
  void find(int process, const std::string& what);
  [[nodiscard]] std::string describe(int process) const;
  [[nodiscard]] std::string stalled(const Neighbour& neighbour) const;

  MpiJob& job_;
  Endings& endings_;
  int process_, processes_;
  std::function<void(const std::string&)> last_resort_;
  std::atomic<double> patience_{20.0};
  std::array<Pulse, max_slots> pulses_;
  std::vector<Address> addresses_;  ///< by process
  mutable std::mutex mutex_;
  std::vector<Neighbour> neighbours_;  ///< by process
  std::string finding_;
  double found_ = 0.0;
  double looked_ = 0.0;                    ///< when this process last looked
  std::int64_t looked_polls_ = 0;          ///< and how often it had emptied its box by then
  std::atomic<double> ticked_{0.0};        ///< when it last began to look
  std::atomic<double> behind_until_{0.0};  ///< when it will know what the others do
  std::atomic<bool> over_{false};
  std::thread thread_;
};

}  // namespace spdnn::comm
