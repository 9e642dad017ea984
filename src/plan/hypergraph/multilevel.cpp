// Multilevel k-way partitioning (Karypis and Kumar, VLSI Design 2000) with annealed refinement.
#include "multilevel.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "refine.hpp"

namespace spdnn::hypergraph {
namespace {

/// A level that is not smaller by this is the last.
constexpr double kLeastShrink = 0.95;
/// Clusters left for each part, about, at the coarsest level.
constexpr std::int64_t kCoarsestPerPart = 4;
/// Proposals at a level, so that large networks take passes and small ones are searched well.
constexpr double kMostProposals = 4e6;
constexpr double kFirstSweeps = 600;
constexpr double kSweeps = 90;
constexpr double kLeastSweeps = 4;
constexpr double kLastSweeps = 30;
/// Beginnings of which the best is refined: so many at most, fewer of larger networks.
constexpr std::int64_t kTries = 16;
constexpr std::int64_t kTriedVertices = 1 << 15;
/// Cycles of coarsening and refining what was found: of a folded network, which is small, and of
/// rows. So many in a row that gain less than this part end them.
constexpr int kFoldedCycles = 8;
constexpr int kRowCycles = 2;
constexpr int kLeanCycles = 2;
constexpr double kLeastGain = 5e-4;
/// Temperatures in words of a net, where nets weigh unequally of the one the typical word is on.
constexpr double kFirstHot = 1.0;
constexpr double kHot = 0.5;
constexpr double kFinestHot = 1.0;
constexpr double kCold = 0.04;

/// The parts of a level's vertices, each made of vertices of one part, from those of the finer
/// level's.
std::vector<std::uint32_t> lift(const Level& level, const std::vector<std::uint32_t>& finer) {
  std::vector<std::uint32_t> parts(static_cast<std::size_t>(level.graph.vertices()));
  for (std::size_t v = 0; v < finer.size(); ++v) parts[level.from_finer[v]] = finer[v];
  return parts;
}

/// The parts of the finer level's vertices.
std::vector<std::uint32_t> lower(const Level& level, const std::vector<std::uint32_t>& parts) {
  std::vector<std::uint32_t> finer(level.from_finer.size());
  for (std::size_t v = 0; v < finer.size(); ++v) finer[v] = parts[level.from_finer[v]];
  return finer;
}

bool shrinks(const Clustering& clustering, const Hypergraph& graph) {
  return static_cast<double>(clustering.count) <=
         kLeastShrink * static_cast<double>(graph.vertices());
}

/// Words of the net that the typical word is on.
double typical_words(const Hypergraph& graph) {
  double sum = 0.0;
  double squares = 0.0;
  for (const std::int64_t words : graph.net_words) {
    sum += static_cast<double>(words);
    squares += static_cast<double>(words) * static_cast<double>(words);
  }
  return sum > 0.0 ? squares / sum : 1.0;
}

/// Words of the nets of a vertex, on average.
double words_of_vertex(const Hypergraph& graph) {
  double sum = 0.0;
  for (std::int64_t net = 0; net < graph.nets(); ++net) {
    sum += static_cast<double>(graph.net_words[net] * std::ssize(graph.pins_of(net)));
  }
  return sum / static_cast<double>(std::max<std::int64_t>(graph.vertices(), 1));
}

/// The widest vertices first, each to the part that is least full in its layers.
std::vector<std::uint32_t> spread(const Hypergraph& graph, const Limits& limits, Random random) {
  const auto parts = static_cast<std::uint32_t>(limits.parts());
  std::vector<std::uint32_t> result(static_cast<std::size_t>(graph.vertices()));
  std::iota(result.begin(), result.begin() + graph.fixed, 0U);
  auto order = random_permutation(static_cast<std::uint32_t>(graph.vertices()), random);
  std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return graph.weights_of(a).size() > graph.weights_of(b).size();
  });
  std::vector<double> fill(static_cast<std::size_t>(graph.layers * parts));
  for (const std::uint32_t v : order) {
    if (v < graph.fixed) continue;
    double least = std::numeric_limits<double>::infinity();
    for (std::uint32_t p = 0; p < parts; ++p) {
      double full = 0.0;
      for (const Weight& own : graph.weights_of(v)) full += fill[own.layer * parts + p];
      if (full < least) {
        least = full;
        result[v] = p;
      }
    }
    for (const Weight& own : graph.weights_of(v)) {
      // A part that may have nothing is full at once.
      const auto most = static_cast<double>(limits.most(own.layer, result[v]));
      fill[own.layer * parts + result[v]] += static_cast<double>(own.nonzeros) / (most + 1e-6);
    }
  }
  return result;
}

class Multilevel {
 public:
  Multilevel(const Prepared& prepared, const Limits& limits, const Search& search)
      : prepared_(prepared), limits_(limits), search_(search), random_(search.seed, 2) {}

  std::vector<std::uint32_t> run() {
    // Folded, a network is so small that trying again there costs little.
    const std::size_t folded = prepared_.levels.size() - 1;
    std::vector<std::uint32_t> parts = first_parts(folded);
    const std::int64_t tries = folded > 0 ? tries_of(level(folded).graph) : 1;
    for (std::int64_t again = 1; again < tries; ++again) {
      std::vector<std::uint32_t> other = first_parts(folded);
      if (worth(other, folded) < worth(parts, folded)) parts = std::move(other);
    }
    parts = improved(std::move(parts), folded, folded > 0 ? kFoldedCycles : kRowCycles);
    if (folded == 0) return parts;
    begin_with(prepared_.levels.size());
    parts = refine_up(lower(level(folded), parts), false, 0, 0);
    return cycled(parts, 0, 0);
  }

 private:
  [[nodiscard]] std::size_t levels() const { return common_ + own_.size(); }
  [[nodiscard]] const Level& level(std::size_t l) const {
    return l < common_ ? prepared_.levels[l] : own_[l - common_];
  }
  /// Forgets all levels but the first `common` that searches share.
  void begin_with(std::size_t common) {
    common_ = common;
    own_.clear();
  }
  [[nodiscard]] double worth(const std::vector<std::uint32_t>& parts, std::size_t l) const {
    return worth_of(level(l).graph, limits_, parts);
  }

  /// Parts of level `to` from nothing.
  std::vector<std::uint32_t> first_parts(std::size_t to) {
    begin_with(prepared_.levels.size());
    coarsen({});
    std::vector<std::uint32_t> parts =
        spread(level(levels() - 1).graph, limits_, Random(random_.next(), 3));
    return refine_up(std::move(parts), true, levels() - 1, to);
  }

  /// As many cycles at level `at` as gain something, `most` at most.
  std::vector<std::uint32_t> improved(std::vector<std::uint32_t> parts, std::size_t at, int most) {
    double before = worth(parts, at);
    int lean = 0;
    for (int cycle = 0; cycle < most && lean < kLeanCycles; ++cycle) {
      parts = cycled(parts, at, at);
      const double after = worth(parts, at);
      lean = after > (1.0 - kLeastGain) * before ? lean + 1 : 0;
      before = after;
    }
    return parts;
  }

  /// Coarsens and refines again what is known at level `at`, and keeps the better.
  std::vector<std::uint32_t> cycled(const std::vector<std::uint32_t>& parts, std::size_t at,
                                    std::size_t to) {
    begin_with(at + 1);
    std::vector<std::uint32_t> again = parts;
    for (std::size_t l = at + 1; l < prepared_.levels.size(); ++l) {
      // What the parts took apart stays so.
      add_level(cluster_within(prepared_.levels[l].from_finer, again, level(l - 1).graph.fixed));
      again = lift(own_.back(), again);
    }
    again = coarsen(std::move(again));
    again = refine_up(std::move(again), false, levels() - 1, to);
    return worth(again, to) <= worth(parts, to) ? again : parts;
  }

  void add_level(Clustering clustering) {
    Hypergraph coarser = contract(level(levels() - 1).graph, clustering.cluster, clustering.count);
    own_.push_back({std::move(coarser), std::move(clustering.cluster)});
  }

  /// Adds levels until there are few vertices. With `parts`, of the coarsest level so far, none
  /// holds vertices of two parts; returns those of the coarsest.
  std::vector<std::uint32_t> coarsen(std::vector<std::uint32_t> parts) {
    const std::int64_t enough = kCoarsestPerPart * limits_.parts();
    while (level(levels() - 1).graph.vertices() > enough) {
      const Hypergraph& graph = level(levels() - 1).graph;
      Clustering clustering = cluster_neighbours(graph, prepared_.caps, parts, random_.next());
      if (!shrinks(clustering, graph)) break;
      add_level(std::move(clustering));
      if (!parts.empty()) parts = lift(own_.back(), parts);
    }
    return parts;
  }

  /// Refines from level `from`, whose parts are given, to level `to`.
  std::vector<std::uint32_t> refine_up(std::vector<std::uint32_t> parts, bool from_scratch,
                                       std::size_t from, std::size_t to) {
    for (std::size_t l = from + 1; l-- > to;) {
      const Hypergraph& graph = level(l).graph;
      Assignment assignment(graph, limits_, std::move(parts));
      anneal(assignment, graph, cooling(graph, from_scratch && l == from, l == 0), random_);
      if (l == 0) finish(assignment, graph);
      parts = assignment.parts();
      if (l > to) parts = lower(level(l), parts);
    }
    return parts;
  }

  [[nodiscard]] std::int64_t tries_of(const Hypergraph& graph) const {
    const double affordable =
        std::min(static_cast<double>(kTries),
                 static_cast<double>(kTriedVertices) /
                     static_cast<double>(std::max<std::int64_t>(graph.vertices(), 1)));
    return static_cast<std::int64_t>(affordable * std::min(search_.effort, 1.0));
  }

  [[nodiscard]] int sweeps(const Hypergraph& graph, double wanted) const {
    const auto vertices = static_cast<double>(std::max<std::int64_t>(graph.vertices(), 1));
    const double affordable = std::max(kMostProposals / vertices, kLeastSweeps);
    return std::max(1,
                    static_cast<int>(std::lround(std::min(wanted, affordable) * search_.effort)));
  }

  [[nodiscard]] Cooling cooling(const Hypergraph& graph, bool first, bool finest) const {
    const double words = typical_words(graph);
    Cooling cooling;
    cooling.hot = words * (first ? kFirstHot : finest ? kFinestHot : kHot);
    cooling.cold = words * kCold;
    // Fewer sweeps than are wanted are the last of so many: what heat undoes takes all of them.
    const double wanted = first ? kFirstSweeps : kSweeps;
    cooling.sweeps = sweeps(graph, wanted);
    const double rest = std::min(1.0, cooling.sweeps / wanted);
    cooling.hot = cooling.cold * std::pow(cooling.hot / cooling.cold, rest);
    cooling.overload_words = (finest ? 1.0 : 3.0) * words_of_vertex(graph);
    return cooling;
  }

  /// Balance first, then what can be had without losing it.
  void finish(Assignment& assignment, const Hypergraph& graph) {
    repair(assignment, graph, limits_.parts());
    Cooling cooling;
    cooling.hot = cooling.cold = 0.0;
    cooling.sweeps = sweeps(graph, kLastSweeps);
    cooling.overload_words = kNever;
    anneal(assignment, graph, cooling, random_);
  }

  static constexpr double kNever = 1e12;
  const Prepared& prepared_;
  const Limits& limits_;
  Search search_;
  Random random_;
  std::size_t common_ = 0;  ///< of the prepared levels, those in use
  std::vector<Level> own_;  ///< coarser ones
};

}  // namespace

Prepared prepare(std::span<const CsrView> weights, Range range,
                 std::span<const std::uint32_t> before, int parts) {
  Prepared prepared;
  prepared.levels.push_back({hypergraph_of(weights, range, before, parts), {}});
  const Hypergraph& graph = prepared.levels.front().graph;
  prepared.caps.resize(static_cast<std::size_t>(graph.layers));
  for (const Weight& weight : graph.weights) prepared.caps[weight.layer] += weight.nonzeros;
  for (std::int64_t& cap : prepared.caps) cap /= parts;
  Clustering twins = cluster_twins(graph, weights, range, prepared.caps);
  if (!shrinks(twins, graph)) return prepared;
  Hypergraph folded = contract(graph, twins.cluster, twins.count);
  prepared.levels.push_back({std::move(folded), std::move(twins.cluster)});
  return prepared;
}

std::vector<std::uint32_t> search_parts(const Prepared& prepared, const Limits& limits,
                                        const Search& search) {
  return Multilevel(prepared, limits, search).run();
}

double worth_of(const Hypergraph& graph, const Limits& limits,
                const std::vector<std::uint32_t>& parts) {
  constexpr double kOverload = 1e12;
  const Assignment assignment(graph, limits, parts);
  return static_cast<double>(assignment.cost()) + kOverload * assignment.overload();
}

}  // namespace spdnn::hypergraph
