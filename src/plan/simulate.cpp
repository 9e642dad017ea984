// Steps on invented clusters. Pure: equal arguments give equal times.
#include "spdnn/simulate.hpp"

#include <algorithm>

namespace spdnn {
namespace {

constexpr double kWordBytes = 4.0;

/// What one rank's link carries in one direction.
struct Side {
  double busy = 0.0;
  double latency = 0.0;
  void add(const LinkClass& link, double bytes) {
    busy += link.message_s + (link.bytes_per_s > 0.0 ? bytes / link.bytes_per_s : 0.0);
    latency = std::max(latency, link.latency_s);
  }
  [[nodiscard]] double seconds() const { return busy + latency; }
};

const LinkClass& link_between(const Cluster& cluster, std::int64_t a, std::int64_t b) {
  if (a / cluster.ranks_per_process == b / cluster.ranks_per_process) return cluster.process;
  return a / cluster.ranks_per_node == b / cluster.ranks_per_node ? cluster.node : cluster.network;
}

/// Each rank's seconds of a layer's exchange; the way back takes as long.
std::vector<double> exchange_of(const LayerTraffic& layer, const Cluster& cluster,
                                std::int64_t batch) {
  std::vector<Side> sent(layer.nonzeros.size());
  std::vector<Side> received(layer.nonzeros.size());
  for (const Transfer& transfer : layer.transfers) {
    const LinkClass& link = link_between(cluster, transfer.from, transfer.to);
    const double bytes = kWordBytes * static_cast<double>(transfer.words * batch);
    sent[transfer.from].add(link, bytes);
    received[transfer.to].add(link, bytes);
  }
  std::vector<double> seconds;
  for (std::size_t p = 0; p < sent.size(); ++p) {
    seconds.push_back(std::max(sent[p].seconds(), received[p].seconds()));
  }
  return seconds;
}

/// Adds up the phases of a step.
class Step {
 public:
  explicit Step(bool overlap) : overlap_(overlap) {}
  /// All ranks compute, and exchange what `exchange` says; empty: nothing.
  void add(const std::vector<double>& compute, const std::vector<double>& exchange) {
    double longest = 0.0;
    double most_compute = 0.0;
    double most_exchange = 0.0;
    for (std::size_t p = 0; p < compute.size(); ++p) {
      const double other = exchange.empty() ? 0.0 : exchange[p];
      longest = std::max(longest, overlap_ ? std::max(compute[p], other) : compute[p] + other);
      most_compute = std::max(most_compute, compute[p]);
      most_exchange = std::max(most_exchange, other);
    }
    time_.seconds += longest;
    time_.compute_s += most_compute;
    time_.exchange_s += most_exchange;
  }
  [[nodiscard]] const StepTime& time() const { return time_; }

 private:
  bool overlap_;
  StepTime time_;
};

}  // namespace

StepTime simulate_step(const Partition& partition, const Traffic& traffic, const StepCost& cost,
                       const Cluster& cluster, const StepRequest& request) {
  const auto batch = static_cast<double>(cost.batch);
  Step step(request.overlap);
  for (std::size_t l = 0; l < traffic.layers.size(); ++l) {
    const LayerTraffic& layer = traffic.layers[l];
    const std::vector<std::int64_t>& offsets = partition.layers[l].offsets;
    const auto seconds = [&](const KernelCost& kernel, double per_weight) {
      std::vector<double> result;
      for (std::size_t p = 0; p < layer.nonzeros.size(); ++p) {
        const auto weights = static_cast<double>(layer.nonzeros[p]);
        const auto rows = static_cast<double>(offsets[p + 1] - offsets[p]);
        result.push_back(batch * (kernel.entry * weights + kernel.row * rows) +
                         per_weight * weights);
      }
      return result;
    };
    const std::vector<double> exchange =
        layer.transfers.empty() ? std::vector<double>{} : exchange_of(layer, cluster, cost.batch);
    step.add(seconds(cost.forward, 0.0), exchange);
    if (!request.training) continue;
    // The first layer's inputs want no gradient. The weights' gradient and the update are local,
    // and run while the partial sums are under way where exchanges overlap.
    if (l > 0) step.add(seconds(cost.backward_data, 0.0), {});
    step.add(seconds(cost.backward_weights, cost.update), exchange);
  }
  return step.time();
}

}  // namespace spdnn
