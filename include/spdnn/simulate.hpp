// The time of a step on more ranks than there are: measured kernels, exact volumes, modelled links.
#pragma once

#include <cstdint>
#include <vector>

#include "spdnn/device.hpp"
#include "spdnn/partition.hpp"

namespace spdnn {

/// What a rank's kernels take, each in seconds an image: so much for every weight, so much for
/// every row.
struct KernelCost {
  double entry = 0.0;
  double row = 0.0;
};

/// What exchanges take of a rank's own time, in whichever memory or network they travel: nothing
/// hides it. Seconds.
struct ExchangeCost {
  double call = 0.0;  ///< an exchange: beginning it, and waking up when it is there
  double word = 0.0;  ///< a word of an image that is sent or received: packing or unpacking it
  double own = 0.0;   ///< an own word of an image, on its way to what the next layer reads
};

/// What a rank's device takes for a batch of `batch` images.
struct StepCost {
  std::int64_t batch = 1;
  KernelCost forward, backward_data, backward_weights;
  double update = 0.0;         ///< seconds a weight, once a step, whatever the batch
  double loss = 0.0;           ///< seconds an output and image; every rank takes all outputs
  ExchangeCost exchange;       ///< of CPU ranks of one process, each with a core
  std::int64_t exchanges = 1;  ///< that a batch goes in, to hide one behind the other's work
};

/// Measures the first of the device's training kernels on layers of random columns at a batch, and
/// exchanges within a process, while `ranks` such devices do the same: they share memory and caches
/// as in a step, and the slowest counts.
[[nodiscard]] StepCost measure_step_cost(const DeviceSpec& spec, std::int64_t batch, int ranks = 1);

/// A class of links (Alexandrov et al., LogGP, SPAA 1995). Messages of a rank go through its link
/// one after another, in both directions at once.
struct LinkClass {
  double latency_s = 0.0;    ///< from the last byte's leaving to its arriving
  double message_s = 0.0;    ///< that a message keeps its ends busy beside its bytes
  double bytes_per_s = 0.0;  ///< 0: no time
};

/// Ranks by number: so many to a process, so many to a node.
struct Cluster {
  std::int64_t ranks_per_process = 1;
  std::int64_t ranks_per_node = 1;
  LinkClass process;  ///< between ranks of one process; their memory takes no time beside copies
  LinkClass node;     ///< between processes of one node
  LinkClass network;  ///< between nodes
};

/// A step's time, and what of it the slowest rank of each layer computes and exchanges.
struct StepTime {
  double seconds = 0.0;
  double compute_s = 0.0;   ///< Σ over layers of the longest compute of any rank
  double exchange_s = 0.0;  ///< Σ over layers of the longest exchange of any rank
};

struct StepRequest {
  bool training = false;  ///< forward, backward and update; else forward alone
  bool overlap = false;   ///< messages travel beside the compute instead of before it
};

/// The time of one step of a partitioned network, layer after layer, each as long as its slowest
/// rank: exchange, then compute. A training step ends its way forward with the outputs on all ranks
/// and the loss. Values are floats. `traffic` is the partition's.
[[nodiscard]] StepTime simulate_step(const Partition& partition, const Traffic& traffic,
                                     const StepCost& cost, const Cluster& cluster,
                                     const StepRequest& request);

}  // namespace spdnn
