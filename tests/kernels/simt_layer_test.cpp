// The SIMT layer itself: its intrinsics, and that planted faults end in an error or a wrong result
// under some schedule instead of a hang.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

#include "support/simt/simt.hpp"

namespace {

using simt::Order;
using simt::Schedule;

const std::array<Schedule, 4> kSchedules = {Schedule{Order::forward, 0},
                                            Schedule{Order::reversed, 0},
                                            Schedule{Order::random, 1}, Schedule{Order::random, 2}};

float* shared_floats() { return static_cast<float*>(simt::dynamic_shared_memory()); }

/// Expects an `Error` whose message holds `part`, under every schedule.
template <class... P, class... A>
void expect_error(const std::string& part, simt::Launch launch, void (*kernel)(P...), A... args) {
  for (const Schedule& schedule : kSchedules) {
    launch.schedule = schedule;
    try {
      simt::launch(launch, kernel, args...);
      ADD_FAILURE() << "no error; expected one with: " << part;
    } catch (const simt::Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
}

void intrinsics_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int id = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  int* mine = out + 6 * id;
  mine[0] = __shfl_sync(0xffffffffU, id, 5);
  mine[1] = __shfl_up_sync(0xffffffffU, id, 1);
  mine[2] = __shfl_down_sync(0xffffffffU, id, 2);
  mine[3] = __shfl_xor_sync(0xffffffffU, id, 3);
  mine[4] = static_cast<int>(__ballot_sync(0xffffffffU, lane % 3 == 0));
  mine[5] = __any_sync(0xffffffffU, lane == 31) + 2 * __any_sync(0xffffffffU, 0);
}

TEST(SimtLayer, IntrinsicsAnswerAsOnAGpu) {
  unsigned thirds = 0;
  for (unsigned lane = 0; lane < 32; lane += 3) thirds |= 1U << lane;
  for (const Schedule& schedule : kSchedules) {
    std::vector<int> out(6 * 3 * 64, -1);
    simt::launch({3, 64, 0, schedule}, &intrinsics_kernel, out.data());
    for (int id = 0; id < 3 * 64; ++id) {
      const int lane = id % 32;
      const int warp = id - lane;
      const int* mine = out.data() + 6 * id;
      ASSERT_EQ(mine[0], warp + 5);
      ASSERT_EQ(mine[1], lane == 0 ? id : id - 1);
      ASSERT_EQ(mine[2], lane >= 30 ? id : id + 2);
      ASSERT_EQ(mine[3], warp + (lane ^ 3));
      ASSERT_EQ(static_cast<unsigned>(mine[4]), thirds);
      ASSERT_EQ(mine[5], 1);
    }
  }
}

void half_warp_kernel(int* out) {
  const unsigned lane = threadIdx.x;
  const unsigned mask = lane < 16 ? 0x0000ffffU : 0xffff0000U;
  int sum = static_cast<int>(lane);
  for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(mask, sum, step);
  __syncwarp();
  out[lane] = sum;
}

TEST(SimtLayer, PartsOfAWarpMeetOnTheirOwn) {
  for (const Schedule& schedule : kSchedules) {
    std::vector<int> out(32);
    simt::launch({1, 32, 0, schedule}, &half_warp_kernel, out.data());
    for (int lane = 0; lane < 32; ++lane) ASSERT_EQ(out[lane], lane < 16 ? 120 : 376);
  }
}

void atomics_kernel(int* sum, unsigned* bits, int* least) {
  atomicAdd(sum, 1);
  atomicOr(bits, 1U << (threadIdx.x % 32));
  atomicMin(least, static_cast<int>(threadIdx.x) - 7);
}

TEST(SimtLayer, AtomicsSeeEveryThread) {
  int sum = 0;
  unsigned bits = 0;
  int least = 100;
  simt::launch({5, 96, 0, {Order::random, 3}}, &atomics_kernel, &sum, &bits, &least);
  EXPECT_EQ(sum, 480);
  EXPECT_EQ(bits, 0xffffffffU);
  EXPECT_EQ(least, -7);
}

/// Reverses a block's numbers through shared memory.
template <bool kBarrier>
void reverse_kernel(float* data) {
  float* staged = shared_floats();
  staged[threadIdx.x] = data[threadIdx.x];
  if (kBarrier) __syncthreads();
  data[threadIdx.x] = staged[blockDim.x - 1 - threadIdx.x];
}

bool reverses(void (*kernel)(float*), const Schedule& schedule) {
  std::vector<float> data(128);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
  std::vector<float> expected(data.rbegin(), data.rend());
  simt::launch({1, 128, 128 * sizeof(float), schedule}, kernel, data.data());
  return data == expected;
}

TEST(SimtLayer, ADroppedBarrierShows) {
  bool caught = false;
  for (const Schedule& schedule : kSchedules) {
    EXPECT_TRUE(reverses(&reverse_kernel<true>, schedule));
    caught = caught || !reverses(&reverse_kernel<false>, schedule);
  }
  EXPECT_TRUE(caught);
}

/// Hands a number to the next lane through shared memory.
template <bool kBarrier>
void pass_on_kernel(float* data) {
  float* staged = shared_floats();
  staged[threadIdx.x] = data[threadIdx.x];
  if (kBarrier) __syncwarp();
  data[threadIdx.x] = staged[(threadIdx.x + 1) % 32];
}

TEST(SimtLayer, ADroppedWarpBarrierShows) {
  bool caught = false;
  for (const Schedule& schedule : kSchedules) {
    for (const bool barrier : {true, false}) {
      std::vector<float> data(32);
      for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
      std::vector<float> expected = data;
      std::rotate(expected.begin(), expected.begin() + 1, expected.end());
      simt::launch({1, 32, 32 * sizeof(float), schedule},
                   barrier ? &pass_on_kernel<true> : &pass_on_kernel<false>, data.data());
      if (barrier) {
        EXPECT_EQ(data, expected);
      } else {
        caught = caught || data != expected;
      }
    }
  }
  EXPECT_TRUE(caught);
}

void write_shared_kernel(int index) { shared_floats()[index] = 1.0F; }

TEST(SimtLayer, AWritePastDynamicSharedMemoryIsAnError) {
  for (const int good : {0, 63}) {
    EXPECT_NO_THROW(simt::launch({2, 32, 256, {}}, &write_shared_kernel, +good));
  }
  expect_error("byte 256 of dynamic shared memory", {2, 32, 256, {}}, &write_shared_kernel, 64);
  expect_error("byte -4 of dynamic shared memory", {2, 32, 256, {}}, &write_shared_kernel, -1);
}

void unwritten_shared_kernel(float* out) { *out = shared_floats()[7]; }

TEST(SimtLayer, UnwrittenSharedMemoryReadsAsNan) {
  float out = 0.0F;
  simt::launch({1, 1, 64, {}}, &unwritten_shared_kernel, &out);
  EXPECT_TRUE(std::isnan(out));
}

void divergent_shuffle_kernel(int* out) {
  int value = static_cast<int>(threadIdx.x);
  if (threadIdx.x != 9) value = __shfl_sync(0xffffffffU, value, 0);
  out[threadIdx.x] = value;
}

void lane_outside_mask_kernel(int* out) { out[threadIdx.x] = __shfl_sync(0x0000ffffU, 1, 0); }

void read_outside_mask_kernel(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0x0000ffffU, 1, 20);
}

void missing_lanes_kernel(int* out) { out[threadIdx.x] = __shfl_sync(0xffffffffU, 1, 0); }

void two_places_kernel(int* out) {
  if (threadIdx.x < 16) {
    out[threadIdx.x] = __shfl_sync(0xffffffffU, 1, 0);
  } else {
    out[threadIdx.x] = __shfl_sync(0xffffffffU, 2, 0);
  }
}

TEST(SimtLayer, ADivergentShuffleIsAnError) {
  std::vector<int> out(64);
  expect_error("not all lanes", {1, 32, 0, {}}, &divergent_shuffle_kernel, out.data());
  expect_error("not all lanes", {1, 32, 0, {}}, &two_places_kernel, out.data());
  expect_error("the lane itself is not in mask", {1, 32, 0, {}}, &lane_outside_mask_kernel,
               out.data());
  expect_error("reads lane 20", {1, 32, 0, {}}, &read_outside_mask_kernel, out.data());
  expect_error("does not exist", {1, 40, 0, {}}, &missing_lanes_kernel, out.data());
}

void early_exit_kernel(int exits) {
  if (static_cast<int>(threadIdx.x) == exits) return;
  __syncthreads();
}

void different_barriers_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

void barrier_and_shuffle_kernel() {
  if (threadIdx.x % 32 < 16) {
    __syncthreads();
  } else {
    __syncwarp();
  }
}

TEST(SimtLayer, ADivergentBarrierIsAnError) {
  expect_error("thread 70 has ended", {1, 96, 0, {}}, &early_exit_kernel, 70);
  expect_error("waits at", {1, 64, 0, {}}, &different_barriers_kernel);
  expect_error("not all lanes", {1, 64, 0, {}}, &barrier_and_shuffle_kernel);
  EXPECT_NO_THROW(simt::launch({1, 96, 0, {}}, &early_exit_kernel, 96)) << "usable after errors";
}

void throwing_kernel() {
  if (threadIdx.x == 3) throw std::logic_error("from a thread");
  __syncthreads();
}

TEST(SimtLayer, WhatAThreadThrowsLeavesTheLaunch) {
  EXPECT_THROW(simt::launch({1, 64, 0, {}}, &throwing_kernel), std::logic_error);
}

}  // namespace
