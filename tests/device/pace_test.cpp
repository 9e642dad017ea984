// How a declared slowdown holds a rank back, by its own thread's CPU time.
#include "spdnn/pace.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace spdnn {
namespace {

constexpr double kWork = 0.004;
constexpr double kSlowdown = 4.0;

/// Computes for so long, and returns how long it was exactly.
double work(double seconds) {
  const double start = thread_cpu_seconds();
  double now = start;
  while (now - start < seconds) now = thread_cpu_seconds();
  return now - start;
}

TEST(Pace, HoldsWorkBackByCpuTimeAndNotByWaiting) {
  constexpr double kWait = 0.02;
  const double start = now_seconds();
  Pace pace(kSlowdown);
  const double worked = work(kWork);
  EXPECT_GE(pace.due() - start, kSlowdown * worked);
  pace.begin_wait();
  EXPECT_GE(now_seconds() - start, kSlowdown * worked);
  std::this_thread::sleep_for(std::chrono::duration<double>(kWait));
  static_cast<void>(work(kWork));  // for others
  pace.end_wait();
  const double waited = now_seconds();
  const double busy = pace.busy();
  EXPECT_GE(busy, kSlowdown * worked);
  EXPECT_LE(busy, waited - start - kWait - kWork + kSlowdown * (now_seconds() - waited));
}

TEST(Pace, WorkAheadOfItsTimeIsMadeGoodAtOnce) {
  const double start = now_seconds();
  Pace pace(kSlowdown);
  double worked = work(kWork);
  const double first = pace.due();
  worked += work(kWork);
  EXPECT_GE(pace.due() - first, kSlowdown * kWork);
  EXPECT_GE(pace.busy(), kSlowdown * worked);
  pace.hold();
  EXPECT_GE(now_seconds() - start, kSlowdown * worked);
}

TEST(Pace, OneThatIsNotSlowedIsDueNow) {
  Pace pace(1.0);
  static_cast<void>(work(kWork));
  const double before = now_seconds();
  const double due = pace.due();
  EXPECT_GE(due, before);
  EXPECT_LE(due, now_seconds());
}

TEST(Pace, SlowdownsChangeAtTheirStep) {
  DeviceSpec spec;
  spec.slowdown_changes = {{2.0, 3.0}, {4.0, 1.0}};
  Pace pace(spec);
  double slowed = 0.0;  // when the slow steps began: one that sleeps too long shortens the next
  for (std::int64_t step = 0; step < 6; ++step) {
    if (step == 2) slowed = now_seconds();
    pace.begin_step(step);
    EXPECT_EQ(pace.slowdown(), step == 2 || step == 3 ? 3.0 : 1.0);
    static_cast<void>(work(2e-3));
    pace.hold();
    if (step == 3) {
      EXPECT_GE(now_seconds() - slowed, 3.0 * 4e-3);
    }
  }
}

TEST(Pace, SlowdownsChangeWithTime) {
  DeviceSpec spec;
  spec.slowdown_changes = {{0.25, 2.0}};  // longer than a thread waits for a core
  spec.slowdown_by_seconds = true;
  Pace pace(spec);
  EXPECT_EQ(pace.slowdown(), 1.0);
  pace.begin_step(100);
  EXPECT_EQ(pace.slowdown(), 1.0);
  std::this_thread::sleep_for(std::chrono::milliseconds(260));
  pace.hold();
  EXPECT_EQ(pace.slowdown(), 2.0);
}

}  // namespace
}  // namespace spdnn
