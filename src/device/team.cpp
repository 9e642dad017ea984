// A small fork-join team: pieces are handed out dynamically. Who waits looks for some microseconds
// before it blocks, since a layer's loops follow one another closely.
#include "team.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>

#include "spdnn/spin.hpp"

namespace spdnn {
namespace {

void pin_this_thread(const std::vector<int>& cores, std::size_t index) {
  if (cores.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cores[index % cores.size()]), &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);  // a hint: failure costs only speed
}

class Team final : public ThreadTeam {
 public:
  /// Who shares a core does not spin: it would keep the thread it waits for from running.
  Team(int threads, const std::vector<int>& cores)
      : spins_(static_cast<std::size_t>(threads) <=
                       (cores.empty() ? usable_cores().size() : cores.size())
                   ? kSpins
                   : 0) {
    pin_this_thread(cores, 0);
    try {
      for (int t = 1; t < threads; ++t) {
        workers_.emplace_back([this, cores, t] {
          pin_this_thread(cores, static_cast<std::size_t>(t));
          work();
        });
      }
    } catch (...) {
      end_workers();  // threads that nobody joins would end the process
      throw;
    }
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team() override { end_workers(); }

  [[nodiscard]] int size() const override { return static_cast<int>(workers_.size()) + 1; }

  void parallel_for(std::int64_t count, std::int64_t grain,
                    const std::function<void(std::int64_t, std::int64_t)>& body) override {
    if (count <= 0) return;
    if (workers_.empty() || count <= grain) {
      body(0, count);
      return;
    }
    body_ = &body;
    count_ = count;
    grain_ = std::max<std::int64_t>(grain, 1);
    next_.store(0, std::memory_order_relaxed);
    running_.store(static_cast<std::uint32_t>(workers_.size()), std::memory_order_relaxed);
    error_ = nullptr;
    begin();
    take_pieces();
    while (const std::uint32_t left = running_.load(std::memory_order_acquire)) {
      await_change(running_, left, spins_);
    }
    if (error_) std::rethrow_exception(error_);
  }

 private:
  /// Sends the workers to what the members tell.
  void begin() {
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
  }

  void take_pieces() {
    try {
      for (;;) {
        const std::int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
        if (begin >= count_) return;
        (*body_)(begin, std::min(begin + grain_, count_));
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      next_.store(count_, std::memory_order_relaxed);
    }
  }

  void work() {
    for (std::uint32_t seen = 0;; ++seen) {
      await_change(generation_, seen, spins_);
      if (stop_) return;
      take_pieces();
      if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
    }
  }

  void end_workers() {
    stop_ = true;
    begin();
    for (std::thread& worker : workers_) worker.join();
  }

  int spins_;
  std::vector<std::thread> workers_;
  // Written by the caller while the workers wait for the next generation.
  const std::function<void(std::int64_t, std::int64_t)>* body_ = nullptr;
  std::int64_t count_ = 0, grain_ = 1;
  bool stop_ = false;
  std::atomic<std::uint32_t> generation_{0};  ///< of pieces
  std::atomic<std::int64_t> next_{0};         ///< piece
  std::atomic<std::uint32_t> running_{0};     ///< workers that have not seen the end of the pieces
  std::mutex mutex_;                          ///< of `error_`
  std::exception_ptr error_;
};

}  // namespace

std::unique_ptr<ThreadTeam> make_team(int threads, const std::vector<int>& cores) {
  return std::make_unique<Team>(std::max(threads, 1), cores);
}

}  // namespace spdnn
