// Local search on an assignment. A proposal costs a look at the nets of one or two vertices.
#include "refine.hpp"

#include <algorithm>
#include <cmath>

namespace spdnn::hypergraph {
namespace {

/// A vertex that may move, and the part of one of its neighbours.
struct Proposal {
  std::uint32_t vertex = 0;
  std::uint32_t to = 0;
};

Proposal propose(const Assignment& assignment, const Hypergraph& graph, Random& random) {
  const auto movable = static_cast<std::uint32_t>(graph.vertices() - graph.fixed);
  const auto v = static_cast<std::uint32_t>(graph.fixed) + random.below(movable);
  const auto nets = graph.nets_of(v);
  if (nets.empty()) return {v, assignment.parts()[v]};
  const auto pins = graph.pins_of(nets[random.below(static_cast<std::uint32_t>(nets.size()))]);
  return {v, assignment.parts()[pins[random.below(static_cast<std::uint32_t>(pins.size()))]]};
}

/// Whether a change is taken at a temperature.
bool accepts(double change, double temperature, Random& random) {
  return change <= 0.0 ||
         (temperature > 0.0 && random.between(0.0, 1.0) < std::exp(-change / temperature));
}

void try_one(Assignment& assignment, const Hypergraph& graph, const Cooling& cooling,
             double temperature, Random& random) {
  const auto [u, to] = propose(assignment, graph, random);
  const std::uint32_t from = assignment.parts()[u];
  if (from == to) return;
  const auto worth = [&](const Assignment::Change& change) {
    return static_cast<double>(change.words) + cooling.overload_words * change.overload;
  };
  const Assignment::Change alone = assignment.change_of_move(u, to);
  const auto peers = assignment.peers(u, to);
  if (alone.overload <= 0.0 || peers.empty()) {
    if (accepts(worth(alone), temperature, random)) assignment.move(u, to);
    return;
  }
  const std::uint32_t v = peers[random.below(static_cast<std::uint32_t>(peers.size()))];
  if (!accepts(worth(assignment.change_of_swap(u, v)), temperature, random)) return;
  assignment.move(u, to);
  assignment.move(v, from);
}

}  // namespace

void anneal(Assignment& assignment, const Hypergraph& graph, const Cooling& cooling,
            Random& random) {
  const std::int64_t movable = graph.vertices() - graph.fixed;
  if (movable == 0) return;
  double temperature = cooling.hot;  // 0: only what is no worse
  const double factor = cooling.sweeps > 1 && cooling.hot > 0.0
                            ? std::pow(cooling.cold / cooling.hot, 1.0 / (cooling.sweeps - 1))
                            : 1.0;
  for (int sweep = 0; sweep < cooling.sweeps; ++sweep, temperature *= factor) {
    for (std::int64_t k = 0; k < movable; ++k) {
      try_one(assignment, graph, cooling, temperature, random);
    }
  }
}

void repair(Assignment& assignment, const Hypergraph& graph, int parts) {
  struct Candidate {
    double cost;
    std::uint32_t vertex, to;
  };
  for (int round = 0; round < 64 && assignment.overload() > 1e-9; ++round) {
    std::vector<Candidate> candidates;
    for (auto v = static_cast<std::uint32_t>(graph.fixed); v < graph.vertices(); ++v) {
      Candidate best{0.0, v, assignment.parts()[v]};
      for (std::uint32_t to = 0; to < static_cast<std::uint32_t>(parts); ++to) {
        if (to == assignment.parts()[v]) continue;
        const Assignment::Change change = assignment.change_of_move(v, to);
        if (change.overload >= 0.0) continue;
        const double cost = static_cast<double>(change.words) / -change.overload;
        if (best.to == assignment.parts()[v] || cost < best.cost) best = {cost, v, to};
      }
      if (best.to != assignment.parts()[v]) candidates.push_back(best);
    }
    if (candidates.empty()) return;
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.cost < b.cost; });
    for (const Candidate& c : candidates) {
      if (assignment.change_of_move(c.vertex, c.to).overload < 0.0) {
        assignment.move(c.vertex, c.to);
      }
    }
  }
}

}  // namespace spdnn::hypergraph
