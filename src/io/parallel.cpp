// Pieces are handed out in ascending order, so every piece below a failing one has been begun and
// runs to its end: the lowest error is known when all threads are back.
#include "parallel.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "spdnn/device.hpp"

namespace spdnn {

int reader_threads() { return std::max(1, static_cast<int>(usable_cores().size())); }

void for_each_piece(std::int64_t count, int threads,
                    const std::function<void(std::int64_t, std::size_t)>& body) {
  std::atomic<std::int64_t> next{0};
  std::mutex mutex;
  std::int64_t failed = std::numeric_limits<std::int64_t>::max();
  std::exception_ptr error;
  const auto work = [&](std::size_t worker) {
    for (std::int64_t piece = next++; piece < count; piece = next++) {
      try {
        body(piece, worker);
      } catch (...) {
        next = count;
        const std::lock_guard lock(mutex);
        if (piece < failed) {
          failed = piece;
          error = std::current_exception();
        }
      }
    }
  };
  const auto helpers = std::max<std::int64_t>(0, std::min<std::int64_t>(threads, count) - 1);
  std::vector<std::thread> team;
  team.reserve(static_cast<std::size_t>(helpers));
  try {
    while (std::ssize(team) < helpers) team.emplace_back(work, team.size() + 1);
  } catch (const std::system_error&) {
    // Fewer threads do the same work.
  }
  work(0);
  for (std::thread& thread : team) thread.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace spdnn
