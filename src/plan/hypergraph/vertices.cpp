// Hypergraphs that are no network's: one layer, so to speak, whose vertices are balanced together.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine.hpp"
#include "spdnn/hypergraph.hpp"

namespace spdnn {
namespace {

using hypergraph::Hypergraph;
using hypergraph::Limits;

Hypergraph graph_of(const VertexGraph& from) {
  Hypergraph graph;
  graph.layers = 1;
  for (const std::int64_t weight : from.vertex_weights) graph.weights.push_back({0, weight});
  graph.weight_offsets.resize(from.vertex_weights.size() + 1);
  std::iota(graph.weight_offsets.begin(), graph.weight_offsets.end(), std::int64_t{0});
  graph.net_offsets = from.net_offsets;
  graph.pins = from.pins;
  graph.net_words = from.net_weights;
  hypergraph::index_incident(graph);
  return graph;
}

/// What whole vertices can always be dealt out within, or the share and the imbalance allowed.
Limits limits_of(const VertexGraph& graph, const HypergraphRequest& request) {
  const auto& weights = graph.vertex_weights;
  const double all = std::accumulate(request.speeds.begin(), request.speeds.end(), 0.0);
  const auto sum =
      static_cast<double>(std::accumulate(weights.begin(), weights.end(), std::int64_t{0}));
  const auto heaviest =
      static_cast<double>(weights.empty() ? 0 : *std::max_element(weights.begin(), weights.end()));
  Limits limits(1, static_cast<int>(std::ssize(request.speeds)));
  for (int p = 0; p < limits.parts(); ++p) {
    const double share = sum * request.speeds[p] / all;
    const double whole = share > 0.0 ? std::ceil(share + heaviest) - 1.0 : 0.0;
    limits.most(0, p) =
        static_cast<std::int64_t>(std::max(share * (1.0 + request.imbalance), whole));
  }
  return limits;
}

}  // namespace

VertexScore score_vertices(const VertexGraph& graph, std::span<const std::uint32_t> owners,
                           const std::vector<double>& speeds) {
  VertexScore score;
  std::vector<std::int64_t> last(speeds.size(), -1);  // net that the part was last seen on
  for (std::int64_t net = 0; net < std::ssize(graph.net_weights); ++net) {
    std::int64_t parts = 0;
    for (std::int64_t k = graph.net_offsets[net]; k < graph.net_offsets[net + 1]; ++k) {
      std::int64_t& seen = last[owners[graph.pins[k]]];
      parts += static_cast<std::int64_t>(seen != net);
      seen = net;
    }
    score.connectivity += graph.net_weights[net] * (parts - 1);
    score.cut += parts > 1 ? graph.net_weights[net] : 0;
  }
  LayerTraffic loads;
  loads.nonzeros.resize(speeds.size());
  for (std::size_t v = 0; v < owners.size(); ++v) {
    loads.nonzeros[owners[v]] += graph.vertex_weights[v];
  }
  Traffic traffic;
  traffic.layers.push_back(std::move(loads));
  score.imbalance = imbalance(traffic, speeds);
  return score;
}

std::vector<std::uint32_t> partition_vertices(const VertexGraph& graph,
                                              const HypergraphRequest& request) {
  hypergraph::check(request);
  const Limits limits = limits_of(graph, request);
  hypergraph::Prepared prepared;
  prepared.levels.push_back({graph_of(graph), {}});
  const auto& weights = graph.vertex_weights;
  prepared.caps = {std::accumulate(weights.begin(), weights.end(), std::int64_t{0}) /
                   limits.parts()};
  return hypergraph::best_search(prepared, limits, request);
}

}  // namespace spdnn
