// Hypergraphs as other programs keep them: hMETIS's files read, and divided into parts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "spdnn/partition.hpp"

namespace spdnn {

/// Vertices, and nets that connect some of them. Unlike a network's, all vertices are balanced
/// together.
struct VertexGraph {
  std::vector<std::int64_t> net_offsets = {0};
  std::vector<std::uint32_t> pins;  ///< of each net, ascending, from 0
  std::vector<std::int64_t> net_weights;
  std::vector<std::int64_t> vertex_weights;
};

/// Reads a hypergraph in hMETIS's format (.hgr; hMETIS 1.5 manual, 1998), which Mt-KaHyPar and
/// KaHyPar share: `nets vertices [1|10|11]`, a net a line (its weight first where the last digit of
/// the format is 1), then a vertex's weight a line (where the first of two digits is 1). Lines that
/// begin with % are comments. Throws `InputError` naming file, line, value and limit of what is
/// wrong, an empty net, a vertex twice on one, or a line too many among it.
[[nodiscard]] VertexGraph read_hypergraph(const std::filesystem::path& file);

/// What a division of its vertices costs.
struct VertexScore {
  std::int64_t connectivity = 0;  ///< Σ weight · (parts on the net − 1)
  std::int64_t cut = 0;           ///< Σ weight of the nets on more than one part
  double imbalance = 0.0;         ///< how far the fullest part is above its share
};
/// `owners[v]`, below the number of speeds, is the part of vertex v.
[[nodiscard]] VertexScore score_vertices(const VertexGraph& graph,
                                         std::span<const std::uint32_t> owners,
                                         const std::vector<double>& speeds);

/// The part of each vertex, by the search of `hypergraph_partition`. A part may exceed its share by
/// the imbalance or, where that is more, by less than the heaviest vertex. Throws `InputError` for
/// a request out of bounds.
[[nodiscard]] std::vector<std::uint32_t> partition_vertices(const VertexGraph& graph,
                                                            const HypergraphRequest& request);

/// Reads the part of each of so many vertices, from 0: one a line, as hMETIS and Mt-KaHyPar write
/// them, or several, as PaToH does. Throws `InputError` naming the line, for a part that is not
/// below `parts` among others.
[[nodiscard]] std::vector<std::uint32_t> read_owners(const std::filesystem::path& file,
                                                     std::int64_t vertices, int parts);
/// Writes them one a line, whole or not at all.
void write_owners(const std::filesystem::path& file, std::span<const std::uint32_t> owners);

}  // namespace spdnn
