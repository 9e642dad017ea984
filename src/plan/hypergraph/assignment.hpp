// A hypergraph's vertices in parts: what each net touches, and what a move would change.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hypergraph.hpp"

namespace spdnn::hypergraph {

/// Which part each vertex is in, with the tables that make the change of a move a matter of looking
/// at its nets: how many pins each net has in each part, and what each part has of each layer.
class Assignment {
 public:
  Assignment(const Hypergraph& graph, const Limits& limits, std::vector<std::uint32_t> parts);

  [[nodiscard]] const std::vector<std::uint32_t>& parts() const { return parts_; }
  /// Σ words · (parts on the net − 1).
  [[nodiscard]] std::int64_t cost() const { return cost_; }
  /// Vertices' worth of nonzeros above the limits, over all layers and parts.
  [[nodiscard]] double overload() const { return overload_; }
  /// Vertices of part `part` whose first layer is that of `v`.
  [[nodiscard]] std::span<const std::uint32_t> peers(std::uint32_t v, std::uint32_t part) const {
    return bucket_[bucket_of(v, part)];
  }

  /// What a change makes of the cost and of the overload.
  struct Change {
    std::int64_t words = 0;
    double overload = 0.0;
  };
  [[nodiscard]] Change change_of_move(std::uint32_t v, std::uint32_t to) const;
  /// Of u and v in each other's parts.
  [[nodiscard]] Change change_of_swap(std::uint32_t u, std::uint32_t v);
  void move(std::uint32_t v, std::uint32_t to);

 private:
  struct Slot {
    std::uint32_t part = 0;
    std::uint32_t pins = 0;
  };
  [[nodiscard]] std::size_t bucket_of(std::uint32_t v, std::uint32_t part) const {
    return anchor_[v] * static_cast<std::size_t>(limits_.parts()) + part;
  }
  [[nodiscard]] std::uint32_t pins_in(std::uint32_t net, std::uint32_t part) const;
  void add_pin(std::uint32_t net, std::uint32_t part);
  void drop_pin(std::uint32_t net, std::uint32_t part);
  /// Words of one net's change where a pin goes from a to b.
  [[nodiscard]] std::int64_t change_on(std::uint32_t net, std::uint32_t a, std::uint32_t b) const {
    return graph_.net_words[net] *
           (static_cast<std::int64_t>(pins_in(net, b) == 0) - (pins_in(net, a) == 1));
  }
  [[nodiscard]] double over(std::size_t layer, std::int64_t load, std::int64_t part) const;
  [[nodiscard]] double overload_change(std::uint32_t v, std::uint32_t to) const;
  void shift_load(std::uint32_t v, std::uint32_t from, std::uint32_t to);

  const Hypergraph& graph_;
  const Limits& limits_;
  std::vector<std::uint32_t> parts_;
  std::vector<std::int64_t> load_;  ///< [layer][part] nonzeros
  std::vector<double> per_row_;     ///< 1 / mean nonzeros of a vertex of the layer
  // Pins by net and part. A net with many pins for the number of parts has a slot for each part;
  // another has as many slots as pins, the first `used_` of them taken by the parts it touches.
  std::vector<std::int64_t> slot_offsets_;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> used_;
  std::vector<std::uint32_t> anchor_;  ///< first layer of each vertex
  std::vector<std::vector<std::uint32_t>> bucket_;
  std::vector<std::uint32_t> place_;  ///< of each vertex in its bucket
  std::vector<std::int64_t> change_of_u_;
  std::vector<std::uint64_t> seen_;
  std::uint64_t tick_ = 0;
  std::int64_t cost_ = 0;
  double overload_ = 0.0;
};

}  // namespace spdnn::hypergraph
