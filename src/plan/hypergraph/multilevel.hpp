// The built-in partitioner: coarsen, assign the coarsest, refine on the way back, and again.
#pragma once

#include <span>
#include <vector>

#include "hypergraph.hpp"

namespace spdnn::hypergraph {

struct Search {
  std::uint64_t seed = 1;
  double effort = 1.0;  ///< sweeps at each level, relative
};

/// A hypergraph, and which of its vertices those of the finer one became.
struct Level {
  Hypergraph graph;
  std::vector<std::uint32_t> from_finer;
};

/// What searches of all seeds have in common.
struct Prepared {
  std::vector<std::int64_t> caps;  ///< nonzeros of a cluster, by layer: one part's share of it
  std::vector<Level> levels;  ///< rows, then rows that read the same neurons, where they shrink
};
[[nodiscard]] Prepared prepare(std::span<const CsrView> weights, Range range,
                               std::span<const std::uint32_t> before, int parts);

/// Parts of the vertices of the finest level, within the limits as far as rows can be moved so.
/// Equal arguments give equal parts.
[[nodiscard]] std::vector<std::uint32_t> search_parts(const Prepared& prepared,
                                                      const Limits& limits, const Search& search);

/// What such parts cost: words, and far more for each vertex's worth above a limit.
[[nodiscard]] double worth_of(const Hypergraph& graph, const Limits& limits,
                              const std::vector<std::uint32_t>& parts);

}  // namespace spdnn::hypergraph
