// Threads that do nothing, at the lowest priority there is.
#include "support/awake.hpp"

#include <pthread.h>
#include <sched.h>

#include "spdnn/limits.hpp"
#include "spdnn/spin.hpp"

namespace spdnn::bench {
namespace {

void keep_awake(int core, const std::atomic<bool>& done) {
  const sched_param none = {};
  // With a priority that others share, it would take their time.
  if (pthread_setschedparam(pthread_self(), SCHED_IDLE, &none) != 0) return;
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core, &cores);
  if (pthread_setaffinity_np(pthread_self(), sizeof cores, &cores) != 0) return;
  while (!done) pause_core();
}

}  // namespace

AwakeCores::AwakeCores() {
  for (const int core : limits::process_cores()) {
    threads_.emplace_back([this, core] { keep_awake(core, done_); });
  }
}

AwakeCores::~AwakeCores() {
  done_ = true;
  for (std::thread& thread : threads_) thread.join();
}

}  // namespace spdnn::bench
