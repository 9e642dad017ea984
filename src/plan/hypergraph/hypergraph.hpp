// The hypergraph of a network: rows are vertices, neurons are nets, words sent are connectivity − 1
// (Demirci and Ferhatosmanoglu, ICS 2021; Çatalyürek and Aykanat, IEEE TPDS 1999).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "spdnn/partition.hpp"

namespace spdnn::hypergraph {

/// What a vertex weighs in one layer: nonzeros.
struct Weight {
  std::uint32_t layer = 0;
  std::int64_t nonzeros = 0;
  friend bool operator==(const Weight&, const Weight&) = default;
};

/// Vertices are rows, or clusters of rows of one or several layers; each layer is balanced on its
/// own. Nets connect the vertex that produces a neuron to those that read it.
struct Hypergraph {
  std::int64_t layers = 0;
  std::vector<std::int64_t> weight_offsets = {0};
  std::vector<Weight> weights;  ///< of each vertex, ascending by layer
  std::vector<std::int64_t> net_offsets = {0};
  std::vector<std::uint32_t> pins;      ///< of each net, ascending
  std::vector<std::int64_t> net_words;  ///< what a part more on the net costs
  std::vector<std::int64_t> incident_offsets;
  std::vector<std::uint32_t> incident;  ///< nets of each vertex, ascending
  std::int64_t fixed = 0;               ///< vertex v < fixed belongs to part v

  [[nodiscard]] std::int64_t vertices() const { return std::ssize(weight_offsets) - 1; }
  [[nodiscard]] std::int64_t nets() const { return std::ssize(net_offsets) - 1; }
  [[nodiscard]] std::span<const Weight> weights_of(std::int64_t v) const {
    return {weights.data() + weight_offsets[v], weights.data() + weight_offsets[v + 1]};
  }
  [[nodiscard]] std::span<const std::uint32_t> pins_of(std::int64_t net) const {
    return {pins.data() + net_offsets[net], pins.data() + net_offsets[net + 1]};
  }
  [[nodiscard]] std::span<const std::uint32_t> nets_of(std::int64_t v) const {
    return {incident.data() + incident_offsets[v], incident.data() + incident_offsets[v + 1]};
  }
};

/// The hypergraph of the layers `range`. Where `before` holds the owners of the rows of the layer
/// before them, the neurons of that layer are nets as well and one vertex for each of the `parts`
/// stands for its rows. Vertices are those, then the rows layer by layer.
[[nodiscard]] Hypergraph hypergraph_of(std::span<const CsrView> weights, Range range,
                                       std::span<const std::uint32_t> before, int parts);

/// The hypergraph whose vertex `cluster[v]` is made of all such v. Nets within one vertex are
/// dropped, equal nets become one of all their words. Fixed vertices must keep their numbers.
[[nodiscard]] Hypergraph contract(const Hypergraph& graph, std::span<const std::uint32_t> cluster,
                                  std::int64_t clusters);

/// Fills the nets of each vertex from the pins of each net.
void index_incident(Hypergraph& graph);

/// Nonzeros that each part may have of each layer.
class Limits {
 public:
  Limits(std::int64_t layers, int parts)
      : parts_(parts), most_(static_cast<std::size_t>(layers * parts)) {}
  [[nodiscard]] int parts() const { return parts_; }
  [[nodiscard]] std::int64_t layers() const { return std::ssize(most_) / parts_; }
  [[nodiscard]] std::int64_t& most(std::int64_t layer, std::int64_t part) {
    return most_[layer * parts_ + part];
  }
  [[nodiscard]] std::int64_t most(std::int64_t layer, std::int64_t part) const {
    return most_[layer * parts_ + part];
  }

 private:
  int parts_;
  std::vector<std::int64_t> most_;
};

/// A cluster of each vertex, and how many there are.
struct Clustering {
  std::vector<std::uint32_t> cluster;
  std::int64_t count = 0;
};
/// Rows of one layer that read the same neurons together, as far as `caps` (nonzeros of a vertex,
/// by layer) allow: what folding a network does.
[[nodiscard]] Clustering cluster_twins(const Hypergraph& graph, std::span<const CsrView> weights,
                                       Range range, std::span<const std::int64_t> caps);
/// The vertices of each cluster that are in the same part. The first `fixed` stay alone.
[[nodiscard]] Clustering cluster_within(std::span<const std::uint32_t> cluster,
                                        std::span<const std::uint32_t> parts, std::int64_t fixed);
/// Each vertex with the neighbour that shares most with it: first choice (Karypis and Kumar, VLSI
/// Design 2000), four vertices at most. With `parts`, only vertices of the same part meet.
[[nodiscard]] Clustering cluster_neighbours(const Hypergraph& graph,
                                            std::span<const std::int64_t> caps,
                                            std::span<const std::uint32_t> parts,
                                            std::uint64_t seed);

}  // namespace spdnn::hypergraph
