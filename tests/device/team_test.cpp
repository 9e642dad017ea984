// The threads of a CPU rank: every index once, errors told, however long they wait between loops.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "spdnn/device.hpp"

namespace spdnn {
namespace {

class TeamTest : public testing::TestWithParam<int> {
 protected:
  TeamTest() {
    DeviceSpec spec;
    spec.threads = GetParam();
    device_ = open_device(spec);
    stream_ = device_->make_stream();
  }
  ThreadTeam& team() { return stream_->team(); }

 private:
  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
};

TEST_P(TeamTest, CoversEveryIndexOnceLoopAfterLoop) {
  EXPECT_EQ(team().size(), GetParam());
  for (int loop = 0; loop < 2000; ++loop) {
    std::vector<int> seen(static_cast<std::size_t>(loop % 97), 0);
    team().parallel_for(std::ssize(seen), 1 + loop % 5, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) ++seen[i];
    });
    ASSERT_EQ(std::accumulate(seen.begin(), seen.end(), 0), loop % 97);
    ASSERT_TRUE(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
  }
}

TEST_P(TeamTest, WorkersThatHaveGoneToSleepAreWoken) {
  for (int loop = 0; loop < 5; ++loop) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<std::int64_t> sum{0};
    team().parallel_for(100, 1, [&](std::int64_t begin, std::int64_t end) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));  // the caller sleeps too
      for (std::int64_t i = begin; i < end; ++i) sum += i;
    });
    ASSERT_EQ(sum, 4950);
  }
}

TEST_P(TeamTest, TellsTheFirstErrorAndWorksOn) {
  const auto fail = [](std::int64_t begin, std::int64_t end) {
    if (begin <= 7 && 7 < end) throw std::runtime_error("the eighth piece");
  };
  for (int loop = 0; loop < 20; ++loop) {
    EXPECT_THROW(team().parallel_for(50, 1, fail), std::runtime_error);
    std::atomic<int> pieces{0};
    team().parallel_for(50, 1, [&](std::int64_t begin, std::int64_t end) {
      pieces += static_cast<int>(end - begin);
    });
    ASSERT_EQ(pieces, 50);
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, TeamTest, testing::Values(1, 2, 5));

}  // namespace
}  // namespace spdnn
