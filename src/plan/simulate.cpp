// Steps on invented clusters. Pure: equal arguments give equal times.
#include "spdnn/simulate.hpp"

#include <algorithm>

#include "spdnn/train_op.hpp"

namespace spdnn {
namespace {

constexpr double kWordBytes = 4.0;

/// What one rank's link carries in one direction.
struct Side {
  double busy = 0.0;
  double latency = 0.0;
  /// Bytes that go in so many messages.
  void add(const LinkClass& link, double bytes, double messages) {
    busy += messages * link.message_s + (link.bytes_per_s > 0.0 ? bytes / link.bytes_per_s : 0.0);
    latency = std::max(latency, link.latency_s);
  }
  [[nodiscard]] double seconds() const { return busy + latency; }
};

const LinkClass& link_between(const Cluster& cluster, std::int64_t a, std::int64_t b) {
  if (a / cluster.ranks_per_process == b / cluster.ranks_per_process) return cluster.process;
  return a / cluster.ranks_per_node == b / cluster.ranks_per_node ? cluster.node : cluster.network;
}

/// One rank's seconds of an exchange: that its link is busy, that the last byte then takes, and
/// those of its own. The way back takes as long.
struct Exchange {
  double busy = 0.0, latency = 0.0, own = 0.0;
};

std::vector<Exchange> exchange_of(const std::vector<Transfer>& transfers,
                                  const std::vector<double>& own_rows, const StepCost& cost,
                                  const Cluster& cluster) {
  std::vector<Side> sent(own_rows.size());
  std::vector<Side> received(own_rows.size());
  std::vector<double> words(own_rows.size());
  const auto batch = static_cast<double>(cost.batch);
  const auto chunks = static_cast<double>(cost.exchanges);
  for (const Transfer& transfer : transfers) {
    const LinkClass& link = link_between(cluster, transfer.from, transfer.to);
    const double count = static_cast<double>(transfer.words) * batch;
    sent[transfer.from].add(link, kWordBytes * count, chunks);
    received[transfer.to].add(link, kWordBytes * count, chunks);
    words[transfer.from] += count;
    words[transfer.to] += count;
  }
  std::vector<Exchange> exchange;
  for (std::size_t p = 0; p < sent.size(); ++p) {
    const Side& side = sent[p].seconds() > received[p].seconds() ? sent[p] : received[p];
    exchange.push_back({side.busy, side.latency + (words[p] > 0.0 ? cost.exchange.latency : 0.0),
                        chunks * cost.exchange.call + cost.exchange.word * words[p] +
                            cost.exchange.own * own_rows[p] * batch});
  }
  return exchange;
}

/// Every rank tells every other what its outputs say of the loss.
std::vector<Transfer> loss_parts(int ranks) {
  std::vector<Transfer> transfers;
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      if (from != to) transfers.push_back({from, to, LossPart::words});
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

/// What ranks compute between two exchanges, by rank: `tied` is what an exchange waits for, or what
/// waits for it; `free` runs meanwhile.
struct Work {
  std::vector<double> tied, free;
};

/// Adds up the phases of a step.
class Step {
 public:
  /// A batch goes in so many chunks.
  Step(bool overlap, std::int64_t chunks)
      : overlap_(overlap), chunks_(static_cast<double>(chunks)) {}
  /// All ranks compute, and exchange what `exchange` says; empty: nothing.
  void add(const Work& work, const std::vector<Exchange>& exchange) {
    double longest = 0.0;
    double most_compute = 0.0;
    double most_exchange = 0.0;
    for (std::size_t p = 0; p < work.tied.size(); ++p) {
      const Exchange own = exchange.empty() ? Exchange{} : exchange[p];
      const double tied = work.tied[p] + own.own;
      const double all = tied + work.free[p];
      // A chunk's way from layer to layer, which the other chunks' work and messages do not hold
      // up, or all there is to compute, or to send.
      const double hidden = std::max({all, own.busy, (tied + own.busy) / chunks_ + own.latency});
      longest = std::max(longest, overlap_ ? hidden : all + own.busy + own.latency);
      most_compute = std::max(most_compute, work.tied[p] + work.free[p]);
      most_exchange = std::max(most_exchange, own.busy + own.latency + own.own);
    }
    time_.seconds += longest;
    time_.compute_s += most_compute;
    time_.exchange_s += most_exchange;
  }
  [[nodiscard]] const StepTime& time() const { return time_; }

 private:
  bool overlap_;
  double chunks_;
  StepTime time_;
};

}  // namespace

StepTime simulate_step(const Partition& partition, const Traffic& traffic, const StepCost& cost,
                       const Cluster& cluster, const StepRequest& request) {
  const auto batch = static_cast<double>(cost.batch);
  Step step(request.overlap, cost.exchanges);
  const std::vector<double> nothing(static_cast<std::size_t>(partition.parts()));
  for (std::size_t l = 0; l < traffic.layers.size(); ++l) {
    const LayerTraffic& layer = traffic.layers[l];
    const auto seconds = [&](double per_weight) {
      std::vector<double> result;
      for (const std::int64_t weights : layer.nonzeros) {
        result.push_back(per_weight * static_cast<double>(weights));
      }
      return result;
    };
    std::vector<Exchange> exchange;
    if (!layer.transfers.empty()) {
      const std::vector<std::int64_t>& before = partition.layers[l - 1].offsets;
      exchange = exchange_of(layer.transfers, rows_of(before), cost, cluster);
    }
    step.add({seconds(batch * cost.forward), nothing}, exchange);
    if (!request.training) continue;
    // The first layer's inputs want no gradient. The weights' gradient is local, and runs while the
    // partial sums are under way.
    step.add({l > 0 ? seconds(batch * cost.backward_data) : nothing,
              seconds(batch * cost.backward_weights)},
             exchange);
    step.add({seconds(cost.update), nothing}, {});
  }
  if (!request.training) return step.time();
  std::vector<double> loss = rows_of(partition.layers.back().offsets);
  for (double& seconds : loss) seconds *= cost.loss * batch;
  // The last chunk hides behind nothing.
  std::vector<Exchange> parts;
  if (loss.size() > 1) {
    const std::vector<double> own(loss.size(), LossPart::words);
    parts = exchange_of(loss_parts(partition.parts()), own, cost, cluster);
    for (Exchange& exchange : parts) {
      if (request.overlap) exchange.busy /= static_cast<double>(cost.exchanges);
    }
  }
  Step last(false, 1);
  last.add({loss, nothing}, parts);
  StepTime time = step.time();
  time.seconds += last.time().seconds;
  time.compute_s += last.time().compute_s;
  time.exchange_s += last.time().exchange_s;
  return time;
}

std::vector<std::pair<std::string, double>> named_seconds(const StepCost& cost) {
  return {{"forward_s", cost.forward},
          {"backward_data_s", cost.backward_data},
          {"backward_weights_s", cost.backward_weights},
          {"update_s", cost.update},
          {"loss_s", cost.loss},
          {"exchange_call_s", cost.exchange.call},
          {"exchange_latency_s", cost.exchange.latency},
          {"exchange_word_s", cost.exchange.word},
          {"exchange_own_word_s", cost.exchange.own}};
}

}  // namespace spdnn
