// Timing the loops of limits.cpp on pinned threads.
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <tuple>
#include <vector>

#include "limits/loops.hpp"
#include "spdnn/comm.hpp"
#include "spdnn/limits.hpp"

namespace spdnn::limits {
namespace {

constexpr double kTrialSeconds = 0.02;
constexpr int kTrials = 9;

void pin_to(int rank) {
  const std::vector<int>& cores = process_cores();
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cores[static_cast<std::size_t>(rank) % cores.size()]), &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

/// Memory on large pages where the system gives them, so that the limits are the caches' own and
/// not those of the page tables.
class Memory {
 public:
  explicit Memory(std::int64_t bytes) : bytes_(static_cast<std::size_t>(bytes) + kLargePage) {
    data_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) throw SystemError("no memory for a benchmark's buffer");
    ::madvise(data_, bytes_, MADV_HUGEPAGE);
    std::fill_n(floats(), bytes / 4, 1.0F);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { ::munmap(data_, bytes_); }
  [[nodiscard]] float* floats() const {
    const auto address = reinterpret_cast<std::uintptr_t>(data_);
    return reinterpret_cast<float*>((address + kLargePage - 1) / kLargePage * kLargePage);
  }

 private:
  static constexpr std::size_t kLargePage = std::size_t{2} << 20;
  std::size_t bytes_;
  void* data_;
};

/// One thread's loop: `rounds` times over; returns the work done.
using Loop = std::function<double(std::int64_t rounds)>;

/// Rounds that take one trial's time.
std::int64_t calibrate(const Loop& loop) {
  for (std::int64_t rounds = 1;; rounds *= 2) {
    const double start = now_seconds();
    loop(rounds);
    const double seconds = now_seconds() - start;
    if (seconds > kTrialSeconds / 2) {
      return std::max<std::int64_t>(
          static_cast<std::int64_t>(static_cast<double>(rounds) * kTrialSeconds / seconds), 1);
    }
  }
}

/// Work a second of all threads together, in the best trial. `make` is called on each thread.
double best_rate(int threads, const std::function<Loop()>& make) {
  double best = 0.0;
  run_ranks(threads, [&](Communicator& comm) {
    pin_to(comm.rank());
    const Loop loop = make();
    std::int64_t rounds = calibrate(loop);
    comm.all_reduce(&rounds, &rounds, 1, DType::i64, Reduction::max, nullptr);
    for (int trial = 0; trial < kTrials; ++trial) {
      comm.barrier();
      const double begin = now_seconds();
      double work = loop(rounds);
      double first = begin;
      double last = now_seconds();
      comm.all_reduce(&first, &first, 1, DType::f64, Reduction::min, nullptr);
      comm.all_reduce(&last, &last, 1, DType::f64, Reduction::max, nullptr);
      comm.all_reduce(&work, &work, 1, DType::f64, Reduction::sum, nullptr);
      if (comm.rank() == 0) best = std::max(best, work / (last - first));
    }
  });
  return best;
}

/// Measures once for each key.
double remembered(const std::tuple<int, std::int64_t, std::int64_t, int>& key,
                  const std::function<double()>& measure) {
  static std::mutex mutex;
  static std::map<std::tuple<int, std::int64_t, std::int64_t, int>, double> rates;
  const std::lock_guard lock(mutex);
  const auto [found, added] = rates.try_emplace(key, 0.0);
  if (added) found->second = measure();
  return found->second;
}

template <class Index>
Loop make_gather(std::int64_t bytes, std::int64_t granule) {
  const auto memory = std::make_shared<Memory>(bytes);
  const std::int64_t granules = std::max<std::int64_t>(bytes / granule, 1);
  const std::int64_t count = (std::max<std::int64_t>(4 * granules, 4096) + 15) / 16 * 16;
  std::mt19937_64 random(1);
  const auto places = std::make_shared<std::vector<Index>>(static_cast<std::size_t>(count));
  for (Index& place : *places) {
    place = static_cast<Index>(random() % static_cast<std::uint64_t>(granules));
  }
  return [=](std::int64_t rounds) {
    float result = 0.0F;
    run_gather_loop(
        GatherWork<Index>{memory->floats(), places->data(), count, granule / 4, rounds, 0.5F},
        &result);
    return static_cast<double>(count * granule / 4) * static_cast<double>(rounds);
  };
}

}  // namespace

const std::vector<int>& process_cores() {
  static const std::vector<int> cores = usable_cores();
  return cores;
}

double fma_rate(int threads) {
  return remembered({0, 0, 0, threads}, [&] {
    return best_rate(threads, [] {
      return [](std::int64_t rounds) {
        float result = 0.0F;
        const double work = run_fma_loop(rounds * 1000, 0.5F, &result);
        return work;
      };
    });
  });
}

double load_rate(std::int64_t bytes, int threads) {
  const std::int64_t count = (bytes / 4 + 255) / 256 * 256;
  return remembered({1, bytes, 0, threads}, [&] {
    return best_rate(threads, [&]() -> Loop {
      const auto memory = std::make_shared<Memory>(4 * count);
      return [=](std::int64_t rounds) {
        float result = 0.0F;
        run_load_loop(memory->floats(), count, rounds, 0.5F, &result);
        return 4.0 * static_cast<double>(count) * static_cast<double>(rounds);
      };
    });
  });
}

double gather_rate(std::int64_t bytes, std::int64_t granule, int threads) {
  return remembered({2, bytes, granule, threads}, [&] {
    return best_rate(threads, [&] {
      return bytes / granule <= 65536 ? make_gather<std::uint16_t>(bytes, granule)
                                      : make_gather<std::uint32_t>(bytes, granule);
    });
  });
}

double gather_rate(std::int64_t bytes, int threads) {
  return std::max(gather_rate(bytes, 64, threads), gather_rate(bytes, 128, threads));
}

}  // namespace spdnn::limits
