// The loops that time what ranks do together.
#include "spdnn/timing.hpp"

#include <algorithm>
#include <limits>

namespace spdnn {

double fastest_together(Communicator& comm, int runs, const std::function<void()>& call) {
  double best = std::numeric_limits<double>::infinity();
  for (int run = 0; run <= runs; ++run) {
    comm.barrier();
    const double start = now_seconds();
    call();
    double seconds = now_seconds() - start;
    comm.all_reduce(&seconds, &seconds, 1, DType::f64, Reduction::max, nullptr);
    if (run > 0) best = std::min(best, seconds);
  }
  return best;
}

double fastest_in_a_row(Communicator& comm, std::int64_t least,
                        const std::function<void(std::int64_t n)>& calls) {
  constexpr double kRunSeconds = 5e-3;
  constexpr int kRuns = 7;
  std::int64_t n = least;
  const auto run = [&] { calls(n); };
  while (fastest_together(comm, 1, run) < kRunSeconds) n *= 2;
  return fastest_together(comm, kRuns, run) / static_cast<double>(n);
}

}  // namespace spdnn
