// Running the peers of a workload in turn and comparing them.
#pragma once

#include <nlohmann/json.hpp>

#include "end_to_end/peers.hpp"

namespace spdnn::bench {

struct Comparison {
  nlohmann::json record;  ///< for the result file
  bool agree = true;      ///< all peers gave the same categories, and none found itself wrong
};

/// Runs every peer once to warm up and `repetitions` times in turn, in alternating order. Up to
/// `patience_s` seconds go into waiting for a quiet machine and into repeating disturbed runs.
[[nodiscard]] Comparison compare(const Workload& workload,
                                 const std::vector<std::unique_ptr<Peer>>& peers, int repetitions,
                                 double patience_s);

/// The record as a few lines for a person.
[[nodiscard]] std::string describe(const nlohmann::json& record);

}  // namespace spdnn::bench
