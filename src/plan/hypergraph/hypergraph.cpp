// Building a network's hypergraph, and contracting one.
#include "hypergraph.hpp"

#include <xxhash.h>

#include <algorithm>
#include <numeric>

namespace spdnn::hypergraph {
namespace {

/// Adds the nets of the neurons that `reader` reads: `producer(neuron)` and the rows from vertex
/// `first` on.
template <class Producer>
void add_nets(Hypergraph& graph, const CsrView& reader, std::int64_t first, Producer producer) {
  std::vector<std::int64_t> next(static_cast<std::size_t>(reader.cols) + 1);
  for (std::int64_t k = 0; k < reader.nnz; ++k) ++next[reader.col(k) + 1];
  for (std::int64_t neuron = 0; neuron < reader.cols; ++neuron) ++next[neuron + 1];
  next[0] = graph.net_offsets.back();
  std::partial_sum(next.begin(), next.end(), next.begin());
  graph.pins.resize(static_cast<std::size_t>(next.back()));
  for (std::int64_t neuron = 0; neuron < reader.cols; ++neuron) {
    graph.net_offsets.push_back(next[neuron + 1]);
    graph.pins[next[neuron]++] = static_cast<std::uint32_t>(producer(neuron));
  }
  for (std::int64_t row = 0; row < reader.rows; ++row) {
    for (std::int64_t k = reader.row_begin(row); k < reader.row_begin(row + 1); ++k) {
      graph.pins[next[reader.col(k)]++] = static_cast<std::uint32_t>(first + row);
    }
  }
  graph.net_words.resize(graph.net_offsets.size() - 1, 1);
}

void add_vertices(Hypergraph& graph, const CsrView& matrix, std::uint32_t layer) {
  for (std::int64_t row = 0; row < matrix.rows; ++row) {
    graph.weights.push_back({layer, matrix.row_begin(row + 1) - matrix.row_begin(row)});
    graph.weight_offsets.push_back(std::ssize(graph.weights));
  }
}

/// The weights of each cluster's members, added up by layer.
void add_weights(Hypergraph& to, const Hypergraph& from, std::span<const std::uint32_t> cluster,
                 std::int64_t clusters) {
  std::vector<std::int64_t> next(static_cast<std::size_t>(clusters) + 1);
  for (const std::uint32_t c : cluster) ++next[c + 1];
  std::partial_sum(next.begin(), next.end(), next.begin());
  std::vector<std::int64_t> ends(next.begin() + 1, next.end());
  std::vector<std::uint32_t> members(cluster.size());
  for (std::size_t v = 0; v < cluster.size(); ++v) {
    members[next[cluster[v]]++] = static_cast<std::uint32_t>(v);
  }
  std::vector<Weight> all;
  for (std::int64_t c = 0; c < clusters; ++c) {
    all.clear();
    for (std::int64_t k = c == 0 ? 0 : ends[c - 1]; k < ends[c]; ++k) {
      const auto own = from.weights_of(members[k]);
      all.insert(all.end(), own.begin(), own.end());
    }
    std::sort(all.begin(), all.end(), [](auto& a, auto& b) { return a.layer < b.layer; });
    const auto begin = to.weight_offsets.back();
    for (const Weight& weight : all) {
      if (std::ssize(to.weights) > begin && to.weights.back().layer == weight.layer) {
        to.weights.back().nonzeros += weight.nonzeros;
      } else {
        to.weights.push_back(weight);
      }
    }
    to.weight_offsets.push_back(std::ssize(to.weights));
  }
}

/// Nets by the hash of their pins; equal ones are found among those of equal hash.
class NetSet {
 public:
  NetSet(Hypergraph& graph, std::int64_t most) : graph_(graph) {
    std::size_t slots = 16;
    while (slots < static_cast<std::size_t>(most) * 2) slots *= 2;
    slots_.assign(slots, 0);
  }
  void add(std::span<const std::uint32_t> pins, std::int64_t words) {
    std::size_t at = XXH3_64bits(pins.data(), pins.size_bytes()) & (slots_.size() - 1);
    for (; slots_[at] != 0; at = (at + 1) & (slots_.size() - 1)) {
      const auto known = graph_.pins_of(slots_[at] - 1);
      if (!std::equal(known.begin(), known.end(), pins.begin(), pins.end())) continue;
      graph_.net_words[slots_[at] - 1] += words;
      return;
    }
    graph_.pins.insert(graph_.pins.end(), pins.begin(), pins.end());
    graph_.net_offsets.push_back(std::ssize(graph_.pins));
    graph_.net_words.push_back(words);
    slots_[at] = graph_.nets();
  }

 private:
  Hypergraph& graph_;
  std::vector<std::int64_t> slots_;  // net + 1, or 0
};

}  // namespace

void index_incident(Hypergraph& graph) {
  graph.incident_offsets.assign(static_cast<std::size_t>(graph.vertices()) + 1, 0);
  for (const std::uint32_t v : graph.pins) ++graph.incident_offsets[v + 1];
  std::partial_sum(graph.incident_offsets.begin(), graph.incident_offsets.end(),
                   graph.incident_offsets.begin());
  graph.incident.resize(graph.pins.size());
  std::vector<std::int64_t> next(graph.incident_offsets.begin(), graph.incident_offsets.end() - 1);
  for (std::int64_t net = 0; net < graph.nets(); ++net) {
    for (const std::uint32_t v : graph.pins_of(net)) {
      graph.incident[next[v]++] = static_cast<std::uint32_t>(net);
    }
  }
}

Hypergraph hypergraph_of(std::span<const CsrView> weights, Range range,
                         std::span<const std::uint32_t> before, int parts) {
  Hypergraph graph;
  graph.layers = range.size();
  if (!before.empty()) {
    graph.fixed = parts;
    graph.weight_offsets.resize(static_cast<std::size_t>(parts) + 1, 0);
  }
  for (std::int64_t l = range.begin; l < range.end; ++l) {
    const std::int64_t first = graph.vertices();
    add_vertices(graph, weights[l], static_cast<std::uint32_t>(l - range.begin));
    if (l > range.begin) {
      const std::int64_t producers = first - weights[l - 1].rows;
      add_nets(graph, weights[l], first, [&](std::int64_t neuron) { return producers + neuron; });
    } else if (!before.empty()) {
      add_nets(graph, weights[l], first, [&](std::int64_t neuron) { return before[neuron]; });
    }
  }
  index_incident(graph);
  return graph;
}

Hypergraph contract(const Hypergraph& graph, std::span<const std::uint32_t> cluster,
                    std::int64_t clusters) {
  Hypergraph small;
  small.layers = graph.layers;
  small.fixed = graph.fixed;
  add_weights(small, graph, cluster, clusters);
  NetSet set(small, graph.nets());
  std::vector<std::uint32_t> pins;
  for (std::int64_t net = 0; net < graph.nets(); ++net) {
    pins.clear();
    for (const std::uint32_t v : graph.pins_of(net)) pins.push_back(cluster[v]);
    std::sort(pins.begin(), pins.end());
    pins.erase(std::unique(pins.begin(), pins.end()), pins.end());
    if (pins.size() > 1) set.add(pins, graph.net_words[net]);
  }
  index_incident(small);
  return small;
}

}  // namespace spdnn::hypergraph
