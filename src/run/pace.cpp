// The accounting behind declared slowdowns.
#include "pace.hpp"

#include <sys/prctl.h>

#include <chrono>
#include <thread>

#include "spdnn/device.hpp"

namespace spdnn {

Pace::Pace(double slowdown)
    : slowdown_(slowdown), start_(now_seconds()), cpu_(thread_cpu_seconds()), due_(start_) {
  // Sleeps are as short as a slice of a layer; the default slack of a timer is 50 µs.
  if (slowdown_ > 1.0) prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
}

void Pace::hold() {
  if (slowdown_ <= 1.0) return;
  const double cpu = thread_cpu_seconds();
  due_ += slowdown_ * (cpu - cpu_);
  cpu_ = cpu;
  const double wait = due_ - now_seconds();
  if (wait > 0.0) std::this_thread::sleep_for(std::chrono::duration<double>(wait));
}

void Pace::begin_wait() {
  hold();
  wait_start_ = now_seconds();
}

void Pace::end_wait() {
  const double waited = now_seconds() - wait_start_;
  waited_ += waited;
  due_ += waited;
  if (slowdown_ > 1.0) cpu_ = thread_cpu_seconds();
}

double Pace::busy() const { return now_seconds() - start_ - waited_; }

}  // namespace spdnn
