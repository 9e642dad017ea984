// How long something took, on the clock and of this process's CPU time.
#pragma once

#include <chrono>
#include <ctime>

namespace spdnn {

struct Elapsed {
  double seconds = 0.0;
  double cpu_seconds = 0.0;  ///< of all threads; what other processes do makes little difference
};

class Stopwatch {
 public:
  [[nodiscard]] Elapsed elapsed() const {
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start_;
    return {seconds.count(), cpu_now() - cpu_start_};
  }

 private:
  static double cpu_now() {
    timespec time{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double cpu_start_ = cpu_now();
};

}  // namespace spdnn
