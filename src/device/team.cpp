// A small fork-join team: workers block on a condition variable, pieces are handed out dynamically.
#include "team.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

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
  Team(int threads, const std::vector<int>& cores) {
    pin_this_thread(cores, 0);
    for (int t = 1; t < threads; ++t) {
      workers_.emplace_back([this, cores, t] {
        pin_this_thread(cores, static_cast<std::size_t>(t));
        work();
      });
    }
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    start_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  [[nodiscard]] int size() const override { return static_cast<int>(workers_.size()) + 1; }

  void parallel_for(std::int64_t count, std::int64_t grain,
                    const std::function<void(std::int64_t, std::int64_t)>& body) override {
    if (count <= 0) return;
    if (workers_.empty() || count <= grain) {
      body(0, count);
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      body_ = &body;
      count_ = count;
      grain_ = std::max<std::int64_t>(grain, 1);
      next_.store(0, std::memory_order_relaxed);
      running_ = std::ssize(workers_);
      error_ = nullptr;
      ++generation_;
    }
    start_.notify_all();
    take_pieces();
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
    body_ = nullptr;
    if (error_) std::rethrow_exception(error_);
  }

 private:
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
    std::uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        start_.wait(lock, [&] { return stop_ || generation_ != seen; });
        if (stop_) return;
        seen = generation_;
      }
      take_pieces();
      const std::lock_guard lock(mutex_);
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  const std::function<void(std::int64_t, std::int64_t)>* body_ = nullptr;
  std::int64_t count_ = 0, grain_ = 1;
  std::atomic<std::int64_t> next_{0};
  std::ptrdiff_t running_ = 0;
  std::uint64_t generation_ = 0;
  std::exception_ptr error_;
  bool stop_ = false;
};

}  // namespace

std::unique_ptr<ThreadTeam> make_team(int threads, const std::vector<int>& cores) {
  return std::make_unique<Team>(std::max(threads, 1), cores);
}

}  // namespace spdnn
