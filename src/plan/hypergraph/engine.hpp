// What all engines that partition hypergraphs share: what they may do, and what becomes of it.
#pragma once

#include "multilevel.hpp"

namespace spdnn::hypergraph {

/// Throws `InputError` for a request out of bounds.
void check(const HypergraphRequest& request);
/// What a part may have of each layer: its share and the imbalance allowed, or what its block of
/// rows has where whole rows come no nearer.
[[nodiscard]] Limits limits_of(const Model& model, const HypergraphRequest& request);
/// The partition of the whole network from the owners of all rows, layer by layer.
[[nodiscard]] Partition partition_of(const Model& model, int parts,
                                     std::span<const std::uint32_t> owners);
/// Of what was found, cyclic and blocks, the one within the limits that sends fewest words.
[[nodiscard]] Partition best_of(const Model& model, const HypergraphRequest& request,
                                const Limits& limits, Partition found);
/// Parts of the vertices of the finest level: the best of several searches, as many at a time as
/// there are threads.
[[nodiscard]] std::vector<std::uint32_t> best_search(const Prepared& prepared, const Limits& limits,
                                                     const HypergraphRequest& request);

}  // namespace spdnn::hypergraph
