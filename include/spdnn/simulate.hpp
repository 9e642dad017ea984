// The time of a step on more ranks than there are: measured kernels, exact volumes, modelled links.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "spdnn/device.hpp"
#include "spdnn/partition.hpp"

namespace spdnn {

/// What exchanges take of ranks, in whichever memory or network they travel. Seconds; of a rank's
/// own time but for the latency, so that nothing hides them.
struct ExchangeCost {
  double call = 0.0;     ///< an exchange: beginning and ending it
  double latency = 0.0;  ///< until another rank sees it, beside that of its link
  double word = 0.0;     ///< a word of an image that is sent or received: packing or unpacking it
  double own = 0.0;      ///< an own word of an image, on its way to what the next layer reads
};

/// What a rank does itself in a step of `batch` images, in seconds.
struct StepCost {
  std::int64_t batch = 1;
  double forward = 0.0;           ///< a weight and image
  double backward_data = 0.0;     ///< a weight and image, but for the first layer's
  double backward_weights = 0.0;  ///< a weight and image; 0 where a rank alone finds it on the way
  double update = 0.0;            ///< a weight, once a step, whatever the batch
  double loss = 0.0;              ///< an own output and image
  ExchangeCost exchange;          ///< of CPU ranks of one process, each with a core
  std::int64_t exchanges = 1;     ///< that a batch goes in, to hide one behind the other's work
};

/// The seconds of a step's cost under the names that result files give them.
[[nodiscard]] std::vector<std::pair<std::string, double>> named_seconds(const StepCost& cost);

/// Measures what an exchange between so many ranks of this process takes beside what each of them
/// does with nobody there; `own` is 0.
[[nodiscard]] ExchangeCost measure_exchange_cost(int ranks, std::int64_t batch);

/// Measures training steps of ranks of a partition, without the others: their rows of the network,
/// or of as many layers as memory allows, from the same caches as in a run, messages packed and
/// unpacked but not sent. `ranks` of them, spread over the partition, do so at once, a CPU thread
/// each, since they share memory and caches. `others` is what exchanges take beside that.
[[nodiscard]] StepCost measure_step_cost(const Model& model, const Partition& partition,
                                         std::int64_t batch, int ranks, const ExchangeCost& others);

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
/// rank: exchange, then compute. A training step ends its way forward with the loss, of which every
/// rank tells every other a few words. Values are floats. `traffic` is the partition's.
[[nodiscard]] StepTime simulate_step(const Partition& partition, const Traffic& traffic,
                                     const StepCost& cost, const Cluster& cluster,
                                     const StepRequest& request);

}  // namespace spdnn
