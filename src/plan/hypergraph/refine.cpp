// Local search on an assignment. A proposal costs a look at the nets of one or two vertices.
#include "refine.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

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

/// The largest change that is taken at a temperature this time. Drawn before the change is known,
/// so that counting may stop where it is passed.
double budget(double temperature, Random& random) {
  return temperature > 0.0 ? -temperature * std::log1p(-random.between(0.0, 1.0)) : 0.0;
}

/// As whole words, from what overload leaves of it.
std::int64_t words_left(double words) {
  constexpr double kMost = 1e18;
  return static_cast<std::int64_t>(std::floor(std::clamp(words, -kMost, kMost)));
}

void try_one(Assignment& assignment, const Hypergraph& graph, const Cooling& cooling,
             double temperature, Random& random) {
  const auto [u, to] = propose(assignment, graph, random);
  if (assignment.parts()[u] == to) return;
  const double most = budget(temperature, random);
  const double overload = assignment.overload_of_move(u, to);
  const auto peers = assignment.peers(u, to);
  if (overload <= 0.0 || peers.empty()) {
    const std::int64_t left = words_left(most - cooling.overload_words * overload);
    if (assignment.words_of_move(u, to, left) <= left) assignment.move(u, to);
    return;
  }
  const std::uint32_t v = peers[random.below(static_cast<std::uint32_t>(peers.size()))];
  const std::int64_t left =
      words_left(most - cooling.overload_words * assignment.overload_of_swap(u, v));
  if (assignment.words_of_swap(u, v, left) > left) return;
  assignment.swap(u, v);
}

/// A vertex and where it would go, for so many words of each vertex's worth of overload.
struct Candidate {
  double cost;
  std::uint32_t vertex, to;
};

/// Where vertices of parts above their limits had best go.
class Exits {
 public:
  Exits(const Assignment& assignment, int parts)
      : assignment_(assignment),
        parts_(static_cast<std::uint32_t>(parts)),
        words_(static_cast<std::size_t>(parts)) {}

  /// The part that costs least: one that its nets touch, or the next with room of the others, which
  /// all cost the same.
  std::optional<Candidate> best_of(std::uint32_t v) {
    const std::int64_t elsewhere = assignment_.find_touched(v, words_, touched_);
    std::optional<Candidate> best;
    const auto consider = [&](std::uint32_t to) {
      const double overload =
          to == assignment_.parts()[v] ? 0.0 : assignment_.overload_of_move(v, to);
      if (overload >= 0.0) return false;
      const double cost = static_cast<double>(elsewhere - words_[to]) / -overload;
      if (!best || cost < best->cost || (cost == best->cost && to < best->to)) {
        best = Candidate{cost, v, to};
      }
      return true;
    };
    for (const std::uint32_t to : touched_) consider(to);
    for (std::uint32_t step = 0; step < parts_; ++step) {
      next_ = next_ + 1 < parts_ ? next_ + 1 : 0;
      if (words_[next_] == 0 && consider(next_)) break;
    }
    for (const std::uint32_t part : touched_) words_[part] = 0;
    touched_.clear();
    return best;
  }

 private:
  const Assignment& assignment_;
  std::uint32_t parts_;
  std::uint32_t next_ = 0;
  std::vector<std::int64_t> words_;
  std::vector<std::uint32_t> touched_;
};

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
  Exits exits(assignment, parts);
  for (int round = 0; round < 64 && assignment.overload() > 1e-9; ++round) {
    std::vector<Candidate> candidates;
    for (auto v = static_cast<std::uint32_t>(graph.fixed); v < graph.vertices(); ++v) {
      if (!assignment.crowded(v)) continue;
      if (const auto best = exits.best_of(v)) candidates.push_back(*best);
    }
    if (candidates.empty()) return;
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.cost < b.cost; });
    for (const Candidate& c : candidates) {
      if (assignment.overload_of_move(c.vertex, c.to) < 0.0) assignment.move(c.vertex, c.to);
    }
  }
}

}  // namespace spdnn::hypergraph
