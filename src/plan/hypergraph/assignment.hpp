// A hypergraph's vertices in parts: what each net touches, and what a move would change.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hypergraph.hpp"

namespace spdnn::hypergraph {

/// Which part each vertex is in, with the tables that make the change of a move a matter of one bit
/// for each of its nets: which parts each net touches, what each vertex keeps its part on alone,
/// and what each part has of each layer.
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

  static constexpr std::int64_t kAnyWords = std::int64_t{1} << 62;
  /// What a move of `v` to another part changes the cost by; where that is more than `most`, some
  /// number above it, which is known sooner.
  [[nodiscard]] std::int64_t words_of_move(std::uint32_t v, std::uint32_t to,
                                           std::int64_t most = kAnyWords) const;
  /// The same where u and v, of different parts, go to each other's.
  [[nodiscard]] std::int64_t words_of_swap(std::uint32_t u, std::uint32_t v,
                                           std::int64_t most = kAnyWords);
  /// Words of the nets of `v` that touch each part, in `words`, whose entries were 0, by part; the
  /// parts that any touches in `touched`. Returns what a move to any other part changes the cost
  /// by; a move to one of these, so many words less.
  [[nodiscard]] std::int64_t find_touched(std::uint32_t v, std::vector<std::int64_t>& words,
                                          std::vector<std::uint32_t>& touched) const;
  /// What they change the overload by.
  [[nodiscard]] double overload_of_move(std::uint32_t v, std::uint32_t to) const;
  [[nodiscard]] double overload_of_swap(std::uint32_t u, std::uint32_t v);
  /// Whether the part of `v` is above the limit of one of its layers.
  [[nodiscard]] bool crowded(std::uint32_t v) const;
  void move(std::uint32_t v, std::uint32_t to);
  /// u and v, of different parts, go to each other's.
  void swap(std::uint32_t u, std::uint32_t v);

 private:
  /// Pins of a net in one part: how many (0: a free slot), and the exclusive or of their numbers,
  /// which is the last one's where one is left.
  struct Slot {
    std::uint32_t part = 0;
    std::uint32_t pins = 0;
    std::uint32_t mixed = 0;
  };
  [[nodiscard]] std::size_t bucket_of(std::uint32_t v, std::uint32_t part) const {
    return anchor_[v] * static_cast<std::size_t>(limits_.parts()) + part;
  }
  [[nodiscard]] std::uint64_t& filter(std::uint32_t net, std::uint32_t part) {
    return filter_[(part % kFilterRows) * filter_words_ + net / 64];
  }
  [[nodiscard]] bool touches(std::uint32_t net, std::uint32_t part) const;
  /// Slots of a net, and the first of them that `part` is looked for in.
  [[nodiscard]] std::int64_t slots_of(std::uint32_t net) const {
    return slot_offsets_[net + 1] - slot_offsets_[net];
  }
  [[nodiscard]] std::int64_t home_of(std::uint32_t part, std::int64_t slots) const;
  /// The slot of `part` on a net, or the free one that it would take.
  [[nodiscard]] const Slot* find(std::uint32_t net, std::uint32_t part) const;
  /// Whether one vertex alone keeps `part`, which the net touches, on it.
  [[nodiscard]] bool alone(std::uint32_t net, std::uint32_t part) const {
    return find(net, part)->pins == 1;
  }
  void add_pin(std::uint32_t net, std::uint32_t v, std::uint32_t part);
  void drop_pin(std::uint32_t net, std::uint32_t v, std::uint32_t part);
  void free_slot(std::uint32_t net, Slot* slot);
  void leave_filter(std::uint32_t net, std::uint32_t part);
  void hand_over(std::uint32_t net, std::uint32_t part, std::uint32_t from, std::uint32_t to);
  /// Fills `nets_`.
  void compare_nets(std::uint32_t u, std::uint32_t v);
  [[nodiscard]] std::int64_t words_on(const std::vector<std::uint32_t>& nets, std::uint32_t from,
                                      std::uint32_t to) const;
  void change_bucket(std::uint32_t v, std::uint32_t to);
  void add_vertices();
  [[nodiscard]] double over(std::size_t layer, std::int64_t load, std::int64_t part) const;
  void shift_load(std::uint32_t v, std::uint32_t from, std::uint32_t to);

  const Hypergraph& graph_;
  const Limits& limits_;
  std::vector<std::uint32_t> parts_;
  std::vector<std::int64_t> load_;  ///< [layer][part] nonzeros
  std::vector<double> per_row_;     ///< 1 / mean nonzeros of a vertex of the layer
  // Pins by net and part: each net has a slot for each part or, where that is less, half as many
  // slots again as pins, in which parts are found by hash.
  std::vector<std::int64_t> slot_offsets_;
  std::vector<Slot> slots_;
  // Of each part one bit for each net that touches it, parts past `kFilterRows` sharing bits with
  // others. A vertex's nets are neurons of two layers, so that their bits lie close together.
  static constexpr std::uint32_t kFilterRows = 512;
  std::size_t filter_words_;  ///< of a part
  std::vector<std::uint64_t> filter_;
  std::vector<std::int64_t> alone_;    ///< words that end where the vertex leaves its part
  std::vector<std::uint32_t> anchor_;  ///< first layer of each vertex
  std::vector<std::vector<std::uint32_t>> bucket_;
  std::vector<std::uint32_t> place_;  ///< of each vertex in its bucket
  /// Nets of two vertices: of one alone, of the other alone, and of both.
  struct Comparison {
    std::vector<std::uint32_t> left, right, both;
  } nets_;
  std::int64_t cost_ = 0;
  double overload_ = 0.0;
};

}  // namespace spdnn::hypergraph
