// Small messages between the processes of a job, beside the ranks' own: failures, signs of life,
// requests. A thread of each process looks for them.
#pragma once

#include <mpi.h>

#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "spdnn/comm.hpp"

namespace spdnn::comm {

/// Throws `CommError` where an MPI function returned an error.
void check_mpi(int code, const char* function);

/// Held around MPI calls, none of which waits: one thread of a process calls MPI at a time. Open
/// MPI 4.1 promises to take calls of several threads at once, but was seen to crash as it matched a
/// message while another thread took receives back.
[[nodiscard]] std::unique_lock<std::mutex> one_caller();

/// Waits a little longer each time, so that waiting leaves the cores to those who work.
class Backoff {
 public:
  void pause();
  void reset() { rounds_ = 0; }

 private:
  int rounds_ = 0;
};

/// All functions may be called from any thread.
class Mail {
 public:
  using Handler = std::function<void(int from, std::span<const std::byte> letter)>;

  /// `comm` carries nothing else.
  explicit Mail(MPI_Comm comm);
  ~Mail();
  Mail(const Mail&) = delete;
  Mail& operator=(const Mail&) = delete;

  /// Sends a letter; returns at once. Letters of one process to another arrive in order.
  void send(int process, int topic, std::span<const std::byte> letter);
  /// Who opens the letters of a topic, one at a time, from now on; null: they wait. A handler may
  /// send, and must not wait.
  void serve(int topic, Handler handler);
  /// Opens what has arrived, unless another thread is at it; whether there was anything.
  bool poll();
  /// How often nothing was left to open.
  [[nodiscard]] std::int64_t emptied() const { return emptied_.load(std::memory_order_relaxed); }

 private:
  struct Outgoing {
    std::vector<std::byte> letter;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  struct Letter {
    int from;
    std::vector<std::byte> bytes;
  };
  bool receive();
  void forget_sent();

  MPI_Comm comm_;
  std::mutex sending_;
  std::deque<Outgoing> outgoing_;
  std::recursive_mutex opening_;
  std::map<int, Handler> handlers_;
  std::map<int, std::deque<Letter>> waiting_;  ///< of topics that nobody serves yet
  std::atomic<std::int64_t> emptied_{0};
  std::atomic<bool> over_{false};
  std::thread thread_;
};

}  // namespace spdnn::comm
