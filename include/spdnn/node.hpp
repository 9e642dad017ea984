// What a machine, or several, can do: every device beside its limits, the links between ranks, and
// the share of a configuration's work that each would get.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "spdnn/comm.hpp"
#include "spdnn/run.hpp"

namespace spdnn {

/// One layer, or a step of training, on a device. Work is counted in multiply–adds.
struct WorkSpeed {
  std::string work;    ///< e.g. "1,024 × 1,024, 32,768 nonzeros"
  std::string kernel;  ///< the fastest one; empty where there is no choice
  double seconds = 0.0;
  double edges_per_s = 0.0;
  double of_limit = 0.0;  ///< least time ÷ time; 0 where no limit is known
};

/// Where it is slowed, speeds contain the slowdown and limits do not.
struct DeviceSpeed : RankDevice {
  double fma_per_s = 0.0;           ///< fp32 multiply–adds between registers; 0: not known
  double memory_bytes_per_s = 0.0;  ///< loads in order from memory; 0: not known
  double copy_bytes_per_s = 0.0;    ///< within the device, each byte read and written once
  double host_bytes_per_s = 0.0;    ///< from the host to the device
  std::vector<WorkSpeed> works;
  std::int64_t share = 0;  ///< of `NodeReport::items`
  double rows = 1.0;       ///< part of every layer's rows that it owns; 1: all of them
};

/// From one rank to another, while the others are idle.
struct LinkSpeed {
  int from = 0, to = 0;
  double latency_s = 0.0;
  double bytes_per_s = 0.0;
};

/// All ranks together.
struct CollectiveSpeed {
  std::string name;
  double latency_s = 0.0;
  double bytes_per_s = 0.0;  ///< of each rank's result
};

struct NodeReport {
  std::string job;    ///< what shares are of: "infer" or "train"
  std::string items;  ///< "images of the input" or "images of a step"
  std::int64_t count = 0;
  double predicted_s = 0.0;  ///< of the whole input, or of a step
  std::vector<DeviceSpeed> devices;
  std::vector<LinkSpeed> links;
  std::vector<CollectiveSpeed> collectives;
  std::vector<std::string> notes;

  /// The part of all work that is a device's: its part of the items, times that of the rows.
  [[nodiscard]] double part_of(const DeviceSpeed& device) const {
    return device.rows * static_cast<double>(device.share) /
           static_cast<double>(count > 0 ? count : 1);
  }
};

/// Measures the devices of `config` on its network, on all processes of `world`, which call this
/// with the same one; the report is in the first process. Speeds of layers are remembered between
/// runs as those of any run are; `refresh` measures them again. Throws `InputError` as a run would.
[[nodiscard]] NodeReport measure_node(const RunConfig& config, bool refresh, World& world);

}  // namespace spdnn
