// What is compared: this project and other libraries, each behind one call.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "end_to_end/workloads.hpp"

namespace spdnn::bench {

/// One inference run.
struct Sample {
  double seconds = 0.0;                  ///< input and weights in memory, up to the categories
  double compile_s = 0.0;                ///< rewriting the network beforehand, where a peer does
  std::vector<std::int64_t> categories;  ///< images with a nonzero output, 0-based, ascending
  double executed_edges = 0.0;           ///< 0 where the peer does not tell
  double edges_before_compile = 0.0;     ///< of the same images in the network as given
  std::int64_t images_at_once = 0;       ///< of all ranks together; 0 where the peer does not tell
  std::string failure;                   ///< why the result is wrong, where it checks itself
};

/// A library ready to run one workload; what it needs is built beforehand and not timed.
class Peer {
 public:
  Peer(std::string library, int threads) : library_(std::move(library)), threads_(threads) {}
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  virtual ~Peer() = default;
  /// `check` asks for whatever checks of its own the peer has; they are not timed.
  [[nodiscard]] virtual Sample run(bool check) = 0;
  [[nodiscard]] const std::string& library() const { return library_; }
  [[nodiscard]] int threads() const { return threads_; }
  [[nodiscard]] std::string name() const { return library_ + "-" + std::to_string(threads_); }

 private:
  std::string library_;
  int threads_;
};

/// Every peer of this build on each number of `threads`, or on one thread where it can't use more.
/// `wanted` names libraries; empty: all.
[[nodiscard]] std::vector<std::unique_ptr<Peer>> make_peers(const Workload& workload,
                                                            const std::vector<std::string>& wanted,
                                                            const std::vector<int>& threads);
/// Libraries of this build.
[[nodiscard]] std::vector<std::string> peer_libraries();

/// `compiled`: with `compile` "full", as library "spdnn_full".
[[nodiscard]] std::unique_ptr<Peer> make_spdnn(const Workload& workload, int ranks, bool compiled);
[[nodiscard]] std::vector<std::unique_ptr<Peer>> make_graphblas(const Workload& workload,
                                                                const std::vector<int>& threads);
[[nodiscard]] std::unique_ptr<Peer> make_eigen(const Workload& workload);

}  // namespace spdnn::bench
