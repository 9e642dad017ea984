// Rows of a layer that are equal as stored.
#pragma once

#include <vector>

#include "network.hpp"

namespace spdnn::compiler {

/// Spreads 64 bits over 64 bits (the finaliser of MurmurHash3).
[[nodiscard]] constexpr std::uint64_t mix(std::uint64_t bits) {
  bits = (bits ^ (bits >> 33)) * 0xFF51AFD7ED558CCDU;
  bits = (bits ^ (bits >> 33)) * 0xC4CEB9FE1A85EC53U;
  return bits ^ (bits >> 33);
}

/// Neurons sorted into classes, numbered in the order of their first members.
struct Classes {
  std::vector<Neuron> of;     ///< by neuron: its class
  std::vector<Neuron> first;  ///< by class: its first neuron
  /// Every neuron is a class of its own.
  [[nodiscard]] bool trivial() const { return of.size() == first.size(); }
  friend bool operator==(const Classes&, const Classes&) = default;
};

/// Classes of rows with the same columns, values (bit for bit) and bias, in the same order. All
/// equality is found by comparison in full; rows are hashed at most once: O(nonzeros).
[[nodiscard]] Classes find_equal_rows(const CsrView& weights, const std::vector<float>& bias);

/// Whether no two rows can be equal in any order of their entries, and no row has a column twice;
/// rows are hashed in a way that order does not matter to. False where hashes collide by chance.
[[nodiscard]] bool surely_distinct(const CsrView& weights, const std::vector<float>& bias);

}  // namespace spdnn::compiler
