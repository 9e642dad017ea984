// The exact count of what a partition makes cross between its parts.
#include <algorithm>
#include <numeric>

#include "spdnn/partition.hpp"

namespace spdnn {
namespace {

/// The distinct readers of one neuron after another: parts that own a row with its column.
class Readers {
 public:
  Readers(const CsrView& matrix, const std::vector<std::uint32_t>& owners)
      : offsets_(matrix.cols + 1) {
    for (std::int64_t k = 0; k < matrix.nnz; ++k) ++offsets_[matrix.col(k) + 1];
    std::partial_sum(offsets_.begin(), offsets_.end(), offsets_.begin());
    parts_.resize(static_cast<std::size_t>(matrix.nnz));
    std::vector<std::int64_t> next(offsets_.begin(), offsets_.end() - 1);
    for (std::int64_t row = 0; row < matrix.rows; ++row) {
      for (std::int64_t k = matrix.row_begin(row); k < matrix.row_begin(row + 1); ++k) {
        parts_[next[matrix.col(k)]++] = owners[row];
      }
    }
  }
  std::span<const std::uint32_t> of(std::int64_t neuron) {
    const auto begin = parts_.begin() + offsets_[neuron];
    const auto end = parts_.begin() + offsets_[neuron + 1];
    std::sort(begin, end);
    return {begin, std::unique(begin, end)};
  }

 private:
  std::vector<std::int64_t> offsets_;
  std::vector<std::uint32_t> parts_;
};

std::vector<Transfer> transfers_into(const CsrView& matrix,
                                     const std::vector<std::uint32_t>& producers,
                                     const std::vector<std::uint32_t>& consumers) {
  Readers readers(matrix, consumers);
  std::vector<std::uint64_t> pairs;  // from · 2³² + to, one for each word
  for (std::int64_t neuron = 0; neuron < matrix.cols; ++neuron) {
    const std::uint32_t owner = producers[neuron];
    for (const std::uint32_t reader : readers.of(neuron)) {
      if (reader != owner) pairs.push_back(std::uint64_t{owner} << 32U | reader);
    }
  }
  std::sort(pairs.begin(), pairs.end());
  std::vector<Transfer> transfers;
  for (const std::uint64_t pair : pairs) {
    const Transfer last{static_cast<int>(pair >> 32U), static_cast<int>(pair & 0xFFFFFFFFU), 0};
    if (transfers.empty() || transfers.back().from != last.from || transfers.back().to != last.to) {
      transfers.push_back(last);
    }
    ++transfers.back().words;
  }
  return transfers;
}

/// Words of each part, sent or received.
struct Sides {
  std::vector<std::int64_t> sent, received;
  explicit Sides(int parts) : sent(parts), received(parts) {}
  void add(const Transfer& transfer) {
    sent[transfer.from] += transfer.words;
    received[transfer.to] += transfer.words;
  }
  [[nodiscard]] std::int64_t max_sent() const {
    return *std::max_element(sent.begin(), sent.end());
  }
  [[nodiscard]] std::int64_t max_received() const {
    return *std::max_element(received.begin(), received.end());
  }
};

std::vector<std::int64_t> nonzeros_of(const CsrView& matrix, const LayerPartition& layer) {
  std::vector<std::int64_t> nonzeros;
  for (std::size_t part = 0; part + 1 < layer.offsets.size(); ++part) {
    std::int64_t sum = 0;
    for (std::int64_t k = layer.offsets[part]; k < layer.offsets[part + 1]; ++k) {
      sum += matrix.row_begin(layer.rows[k] + 1) - matrix.row_begin(layer.rows[k]);
    }
    nonzeros.push_back(sum);
  }
  return nonzeros;
}

}  // namespace

Traffic count_traffic(const Model& model, const Partition& partition) {
  validate(partition, model);
  const std::vector<CsrView> weights = partitioned_weights(model);
  Traffic traffic;
  Sides all(partition.parts());
  std::vector<std::uint32_t> producers;
  for (std::size_t l = 0; l < weights.size(); ++l) {
    std::vector<std::uint32_t> owners = owners_of(partition.layers[l]);
    LayerTraffic layer;
    if (l > 0) layer.transfers = transfers_into(weights[l], producers, owners);
    layer.nonzeros = nonzeros_of(weights[l], partition.layers[l]);
    Sides sides(partition.parts());
    for (const Transfer& transfer : layer.transfers) {
      layer.words += transfer.words;
      sides.add(transfer);
      all.add(transfer);
    }
    layer.max_sent = sides.max_sent();
    layer.max_received = sides.max_received();
    traffic.words += layer.words;
    traffic.messages += std::ssize(layer.transfers);
    traffic.layers.push_back(std::move(layer));
    producers = std::move(owners);
  }
  traffic.max_sent = all.max_sent();
  traffic.max_received = all.max_received();
  return traffic;
}

double imbalance(const Traffic& traffic, const std::vector<double>& speeds) {
  double worst = 0.0;
  for (const LayerTraffic& layer : traffic.layers) {
    const auto sum = std::accumulate(layer.nonzeros.begin(), layer.nonzeros.end(), std::int64_t{0});
    if (sum == 0) continue;
    const double all = speeds.empty() ? static_cast<double>(layer.nonzeros.size())
                                      : std::accumulate(speeds.begin(), speeds.end(), 0.0);
    for (std::size_t part = 0; part < layer.nonzeros.size(); ++part) {
      if (layer.nonzeros[part] == 0) continue;
      const double share = static_cast<double>(sum) * (speeds.empty() ? 1.0 : speeds[part]) / all;
      worst = std::max(worst, static_cast<double>(layer.nonzeros[part]) / share - 1.0);
    }
  }
  return worst;
}

}  // namespace spdnn
