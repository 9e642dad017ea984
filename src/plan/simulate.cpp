// Steps on invented clusters. Pure: equal arguments give equal times.
#include "spdnn/simulate.hpp"

#include <algorithm>
#include <numeric>

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

/// Each rank's seconds of an exchange: those that its messages travel, and those of its own. The
/// way back takes as long.
struct Exchange {
  std::vector<double> travel, own;
};

Exchange exchange_of(const std::vector<Transfer>& transfers, const std::vector<double>& own_rows,
                     const StepCost& cost, const Cluster& cluster) {
  std::vector<Side> sent(own_rows.size());
  std::vector<Side> received(own_rows.size());
  std::vector<double> words(own_rows.size());
  const auto batch = static_cast<double>(cost.batch);
  for (const Transfer& transfer : transfers) {
    const LinkClass& link = link_between(cluster, transfer.from, transfer.to);
    const double count = static_cast<double>(transfer.words) * batch;
    sent[transfer.from].add(link, kWordBytes * count);
    received[transfer.to].add(link, kWordBytes * count);
    words[transfer.from] += count;
    words[transfer.to] += count;
  }
  Exchange exchange;
  for (std::size_t p = 0; p < sent.size(); ++p) {
    exchange.travel.push_back(std::max(sent[p].seconds(), received[p].seconds()));
    exchange.own.push_back(static_cast<double>(cost.exchanges) * cost.exchange.call +
                           cost.exchange.word * words[p] + cost.exchange.own * own_rows[p] * batch);
  }
  return exchange;
}

/// The outputs go from every rank to every other, for the loss.
std::vector<Transfer> all_outputs(const std::vector<std::int64_t>& offsets) {
  std::vector<Transfer> transfers;
  const auto ranks = static_cast<std::int64_t>(offsets.size()) - 1;
  for (std::int64_t from = 0; from < ranks; ++from) {
    const std::int64_t words = offsets[from + 1] - offsets[from];
    for (std::int64_t to = 0; to < ranks && words > 0; ++to) {
      if (from != to) transfers.push_back({static_cast<int>(from), static_cast<int>(to), words});
    }
  }
  return transfers;
}

std::vector<double> rows_of(const std::vector<std::int64_t>& offsets) {
  std::vector<double> rows;
  for (std::size_t p = 0; p + 1 < offsets.size(); ++p) {
    rows.push_back(static_cast<double>(offsets[p + 1] - offsets[p]));
  }
  return rows;
}

/// Adds up the phases of a step.
class Step {
 public:
  explicit Step(bool overlap) : overlap_(overlap) {}
  /// All ranks compute, and exchange what `exchange` says; without ranks: nothing. It travels
  /// beside the compute where that `hides` it.
  void add(const std::vector<double>& compute, const Exchange& exchange, bool hides = true) {
    double longest = 0.0;
    double most_compute = 0.0;
    double most_exchange = 0.0;
    for (std::size_t p = 0; p < compute.size(); ++p) {
      const double travel = exchange.travel.empty() ? 0.0 : exchange.travel[p];
      const double own = exchange.own.empty() ? 0.0 : exchange.own[p];
      const double work = compute[p] + own;
      longest = std::max(longest, overlap_ && hides ? std::max(work, travel) : work + travel);
      most_compute = std::max(most_compute, compute[p]);
      most_exchange = std::max(most_exchange, travel + own);
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
    Exchange exchange;
    if (!layer.transfers.empty()) {
      const std::vector<std::int64_t>& before = partition.layers[l - 1].offsets;
      exchange = exchange_of(layer.transfers, rows_of(before), cost, cluster);
    }
    step.add(seconds(cost.forward, 0.0), exchange, cost.exchanges > 1);
    if (!request.training) continue;
    // The first layer's inputs want no gradient. The weights' gradient and the update are local,
    // and run while the partial sums are under way where exchanges overlap.
    if (l > 0) step.add(seconds(cost.backward_data, 0.0), {});
    step.add(seconds(cost.backward_weights, cost.update), exchange);
  }
  if (request.training) {
    const std::vector<std::int64_t>& offsets = partition.layers.back().offsets;
    const std::vector<double> rows = rows_of(offsets);
    const std::vector<double> loss(
        rows.size(), cost.loss * batch * std::accumulate(rows.begin(), rows.end(), 0.0));
    step.add(loss,
             rows.size() == 1 ? Exchange{} : exchange_of(all_outputs(offsets), rows, cost, cluster),
             cost.exchanges > 1);
  }
  return step.time();
}

}  // namespace spdnn
