// The accounting behind declared slowdowns.
#include "spdnn/pace.hpp"

#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace spdnn {

Pace::Pace(double slowdown) : Pace(slowed(slowdown)) {}

Pace::Pace(const DeviceSpec& spec)
    : slowdown_(spec.slowdown),
      changes_(spec.slowdown_changes),
      by_seconds_(spec.slowdown_by_seconds),
      start_(now_seconds()),
      cpu_(thread_cpu_seconds()),
      due_(start_) {
  // Sleeps are as short as a slice of a layer; the default slack of a timer is 50 µs.
  if (slows()) prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
}

DeviceSpec Pace::slowed(double slowdown) {
  DeviceSpec spec;
  spec.slowdown = slowdown;
  return spec;
}

void Pace::pass_changes(double at) {
  while (!changes_.empty() && at >= changes_.front().at) {
    slowdown_ = changes_.front().factor;
    changes_.erase(changes_.begin());
    due_ = std::max(due_, now_seconds());  // being late before is no credit after
  }
}

void Pace::begin_step(std::int64_t step) {
  if (by_seconds_ || changes_.empty()) return;
  hold();
  pass_changes(static_cast<double>(step));
}

double Pace::due() {
  if (!slows()) return now_seconds();
  const double cpu = thread_cpu_seconds();
  due_ += slowdown_ * (cpu - cpu_);
  cpu_ = cpu;
  const double now = now_seconds();
  if (by_seconds_) pass_changes(now - start_);
  return std::max(due_, now);
}

void Pace::hold() {
  if (!slows()) return;
  const double wait = due() - now_seconds();
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
  if (slows()) cpu_ = thread_cpu_seconds();
}

double Pace::busy() { return due() - start_ - waited_; }

}  // namespace spdnn
