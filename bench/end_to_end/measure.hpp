// Running the peers of a workload in turn and comparing them.
#pragma once

#include <map>
#include <nlohmann/json.hpp>

#include "end_to_end/peers.hpp"

namespace spdnn::bench {

struct Comparison {
  nlohmann::json record;  ///< for the result file
  bool agree = true;      ///< all peers gave the same categories, and none found itself wrong
};

/// How often peers run.
struct Repetitions {
  int each = 5;
  std::map<std::string, int> of;  ///< by library, where it is another number
  [[nodiscard]] int for_peer(const Peer& peer) const {
    const auto found = of.find(peer.library());
    return found == of.end() ? each : found->second;
  }
};

/// Runs every peer once to warm up and then in turn, in alternating order, as often as it is to.
/// Up to `patience_s` seconds go into waiting for a quiet machine and into repeating disturbed
/// runs.
[[nodiscard]] Comparison compare(const Workload& workload,
                                 const std::vector<std::unique_ptr<Peer>>& peers,
                                 const Repetitions& repetitions, double patience_s);

/// The record as a few lines for a person.
[[nodiscard]] std::string describe(const nlohmann::json& record);

}  // namespace spdnn::bench
