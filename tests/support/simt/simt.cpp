// The scheduler of the SIMT layer: runs a block's fibers and lets them meet.
#include "support/simt/simt.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "support/simt/fiber.hpp"

namespace simt {
namespace {

constexpr unsigned kWarp = 32;
constexpr std::size_t kGuardBytes = 1024;
// As a float, a NaN: what is read before it is written poisons the result.
constexpr std::uint32_t kUnwritten = 0xffa5a5a5U;

enum class State : std::uint8_t { runnable, waiting, ended };

struct Thread {
  State state = State::ended;
  Meeting meeting = Meeting::block_barrier;
  unsigned mask = 0;
  std::uint64_t payload = 0;
  int source = 0;
  Site site;
  std::uint64_t answer = 0;
};

const char* name_of(Meeting meeting) {
  switch (meeting) {
    case Meeting::block_barrier: return "__syncthreads";
    case Meeting::warp_barrier: return "__syncwarp";
    case Meeting::shuffle: return "a shuffle";
    case Meeting::ballot: return "a ballot";
  }
  return "";
}

bool same_site(const Site& a, const Site& b) {
  return a.line == b.line && std::strcmp(a.file, b.file) == 0;
}

/// Runs one block at a time.
class Machine {
 public:
  void run_grid(const Launch& launch, const std::function<void()>& body);
  std::uint64_t wait(const Thread& meeting);
  void* shared() { return arena_.data() + kGuardBytes / sizeof(std::uint32_t); }

 private:
  void run_block();
  void run_warp(unsigned warp);
  bool release_group(unsigned warp, unsigned lane);
  void meet_in_warp(unsigned warp);
  void release_block();
  void prepare_shared();
  void check_guards() const;
  [[nodiscard]] int pick_warp();
  [[nodiscard]] unsigned lanes(unsigned warp) const {
    return std::min(kWarp, launch_.block - warp * kWarp);
  }
  [[nodiscard]] unsigned warps() const { return (launch_.block + kWarp - 1) / kWarp; }
  [[noreturn]] void fail(unsigned thread, const std::string& what) const;
  static void thread_body(void* context);

  Launch launch_;
  const std::function<void()>* body_ = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Thread> threads_;
  std::vector<std::uint32_t> arena_;
  std::vector<unsigned> lane_order_;
  std::mt19937_64 random_;
  std::exception_ptr error_;
};

Machine& machine() {
  static Machine only;
  return only;
}

void Machine::thread_body(void* context) {
  auto& self = *static_cast<Machine*>(context);
  try {
    (*self.body_)();
  } catch (...) {
    self.error_ = std::current_exception();
  }
  self.threads_[threadIdx.x].state = State::ended;
}

void Machine::fail(unsigned thread, const std::string& what) const {
  const Thread& at = threads_[thread];
  throw Error(fmt::format("block {}, thread {}, {} at {}:{}: {}", blockIdx.x, thread,
                          name_of(at.meeting), at.site.file, at.site.line, what));
}

void Machine::run_grid(const Launch& launch, const std::function<void()>& body) {
  if (launch.block == 0 || launch.block > 1024 || launch.grid == 0) {
    throw Error(fmt::format("cannot launch {} blocks of {} threads", launch.grid, launch.block));
  }
  launch_ = launch;
  body_ = &body;
  random_.seed(launch.schedule.seed);
  threads_.assign(launch.block, Thread{});
  while (fibers_.size() < launch.block) fibers_.push_back(std::make_unique<Fiber>());
  lane_order_.resize(kWarp);
  std::iota(lane_order_.begin(), lane_order_.end(), 0U);
  if (launch.schedule.order == Order::reversed) {
    std::reverse(lane_order_.begin(), lane_order_.end());
  }
  gridDim.x = launch.grid;
  blockDim.x = launch.block;
  for (unsigned i = 0; i < launch.grid; ++i) {
    blockIdx.x = launch.schedule.order == Order::reversed ? launch.grid - 1 - i : i;
    run_block();
  }
}

void Machine::run_block() {
  prepare_shared();
  for (unsigned t = 0; t < launch_.block; ++t) {
    threads_[t].state = State::runnable;
    fibers_[t]->start(&thread_body, this);
  }
  for (;;) {
    const int warp = pick_warp();
    if (warp >= 0) {
      run_warp(static_cast<unsigned>(warp));
      continue;
    }
    check_guards();
    const bool all_ended = std::all_of(threads_.begin(), threads_.end(),
                                       [](const Thread& t) { return t.state == State::ended; });
    if (all_ended) return;
    release_block();
  }
}

int Machine::pick_warp() {
  const auto count = static_cast<int>(warps());
  const int start = launch_.schedule.order == Order::random
                        ? static_cast<int>(random_() % static_cast<unsigned>(count))
                        : 0;
  for (int i = 0; i < count; ++i) {
    const int warp =
        launch_.schedule.order == Order::reversed ? count - 1 - i : (start + i) % count;
    const Thread* first = &threads_[static_cast<unsigned>(warp) * kWarp];
    const auto is_runnable = [](const Thread& t) { return t.state == State::runnable; };
    if (std::any_of(first, first + lanes(static_cast<unsigned>(warp)), is_runnable)) return warp;
  }
  return -1;
}

void Machine::run_warp(unsigned warp) {
  if (launch_.schedule.order == Order::random) {
    std::shuffle(lane_order_.begin(), lane_order_.end(), random_);
  }
  for (const unsigned lane : lane_order_) {
    const unsigned thread = warp * kWarp + lane;
    if (thread >= launch_.block || threads_[thread].state != State::runnable) continue;
    threadIdx.x = thread;
    fibers_[thread]->resume();
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }
  meet_in_warp(warp);
}

/// Lets the lanes that meet `lane` go on if all of them are there.
bool Machine::release_group(unsigned warp, unsigned lane) {
  Thread* group = &threads_[warp * kWarp];
  const Thread& caller = group[lane];
  for (unsigned i = 0; i < kWarp; ++i) {
    if ((caller.mask >> i & 1U) == 0) continue;
    if (i >= lanes(warp)) fail(warp * kWarp + lane, fmt::format("lane {} does not exist", i));
    const Thread& other = group[i];
    if (other.state != State::waiting || other.meeting != caller.meeting ||
        other.mask != caller.mask || !same_site(other.site, caller.site)) {
      return false;
    }
  }
  const unsigned mask = caller.mask;
  std::uint64_t ballot = 0;
  for (unsigned i = 0; i < lanes(warp); ++i) {
    if ((mask >> i & 1U) != 0 && group[i].payload != 0) ballot |= std::uint64_t{1} << i;
  }
  for (unsigned i = 0; i < lanes(warp); ++i) {
    if ((mask >> i & 1U) == 0) continue;
    Thread& to = group[i];
    if (to.meeting == Meeting::ballot) to.answer = ballot;
    if (to.meeting == Meeting::shuffle) {
      if ((mask >> to.source & 1U) == 0) {
        fail(warp * kWarp + i,
             fmt::format("reads lane {}, which is not in mask {:#010x}", to.source, mask));
      }
      to.answer = group[to.source].payload;
    }
  }
  for (unsigned i = 0; i < lanes(warp); ++i) {
    if ((mask >> i & 1U) != 0) group[i].state = State::runnable;
  }
  return true;
}

/// All lanes wait or have ended: releases those that met; a lane that no other can join any more
/// is an error.
void Machine::meet_in_warp(unsigned warp) {
  bool released = false;
  int stuck = -1;
  for (unsigned i = 0; i < lanes(warp); ++i) {
    const Thread& thread = threads_[warp * kWarp + i];
    if (thread.state != State::waiting || thread.meeting == Meeting::block_barrier) continue;
    if (release_group(warp, i)) {
      released = true;
    } else if (stuck < 0) {
      stuck = static_cast<int>(i);
    }
  }
  if (released || stuck < 0) return;
  fail(
      warp * kWarp + static_cast<unsigned>(stuck),
      fmt::format("not all lanes of mask {:#010x} come here", threads_[warp * kWarp + stuck].mask));
}

/// Nothing can run: all threads must be at one and the same barrier.
void Machine::release_block() {
  const auto first = std::find_if(threads_.begin(), threads_.end(),
                                  [](const Thread& t) { return t.state == State::waiting; });
  const auto waiting = static_cast<unsigned>(first - threads_.begin());
  for (unsigned t = 0; t < launch_.block; ++t) {
    if (threads_[t].state == State::ended) {
      fail(waiting, fmt::format("thread {} has ended without it", t));
    }
    if (!same_site(threads_[t].site, first->site)) {
      fail(waiting, fmt::format("thread {} waits at {}:{}", t, threads_[t].site.file,
                                threads_[t].site.line));
    }
  }
  for (Thread& thread : threads_) thread.state = State::runnable;
}

void Machine::prepare_shared() {
  const std::size_t words = (launch_.shared_bytes + 3) / 4 + 2 * kGuardBytes / 4;
  arena_.assign(words, kUnwritten);
}

void Machine::check_guards() const {
  const auto* bytes = reinterpret_cast<const unsigned char*>(arena_.data());
  const std::size_t end = kGuardBytes + launch_.shared_bytes;
  for (std::size_t i = 0; i < arena_.size() * 4; ++i) {
    if (i == kGuardBytes) i = end;
    if (bytes[i] != static_cast<unsigned char>(kUnwritten >> (i % 4 * 8))) {
      throw Error(fmt::format(
          "block {}: byte {} of dynamic shared memory was written; it has {}", blockIdx.x,
          static_cast<std::ptrdiff_t>(i) - static_cast<std::ptrdiff_t>(kGuardBytes),
          launch_.shared_bytes));
    }
  }
}

std::uint64_t Machine::wait(const Thread& meeting) {
  const unsigned index = threadIdx.x;
  threads_[index] = meeting;
  if (meeting.meeting != Meeting::block_barrier && (meeting.mask >> index % kWarp & 1U) == 0) {
    fail(index, fmt::format("the lane itself is not in mask {:#010x}", meeting.mask));
  }
  Fiber::suspend();
  return threads_[index].answer;
}

}  // namespace

void run_grid(const Launch& launch, const std::function<void()>& thread) {
  machine().run_grid(launch, thread);
}

void* dynamic_shared_memory() { return machine().shared(); }

std::uint64_t meet(Meeting meeting, unsigned mask, std::uint64_t payload, int source, Site site) {
  return machine().wait({State::waiting, meeting, mask, payload, source, site, 0});
}

}  // namespace simt
