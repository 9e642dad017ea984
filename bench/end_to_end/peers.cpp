// The list of peers.
#include "end_to_end/peers.hpp"

#include <algorithm>

namespace spdnn::bench {

std::vector<std::string> peer_libraries() {
  return {
    "spdnn", "spdnn_full",
#if defined(BENCH_HAVE_GRAPHBLAS)
        "graphblas",
#endif
#if defined(BENCH_HAVE_EIGEN)
        "eigen",
#endif
  };
}

std::vector<std::unique_ptr<Peer>> make_peers(const Workload& workload,
                                              const std::vector<std::string>& wanted,
                                              const std::vector<int>& threads) {
  const auto asked = [&](const char* library) {
    return wanted.empty() || std::find(wanted.begin(), wanted.end(), library) != wanted.end();
  };
  std::vector<std::unique_ptr<Peer>> peers;
  for (const bool compiled : {false, true}) {
    if (!asked(compiled ? "spdnn_full" : "spdnn")) continue;
    for (const int count : threads) peers.push_back(make_spdnn(workload, count, compiled));
  }
#if defined(BENCH_HAVE_GRAPHBLAS)
  if (asked("graphblas")) {
    for (auto& peer : make_graphblas(workload, threads)) peers.push_back(std::move(peer));
  }
#endif
#if defined(BENCH_HAVE_EIGEN)
  if (asked("eigen")) peers.push_back(make_eigen(workload));
#endif
  return peers;
}

}  // namespace spdnn::bench
