// The operations that change which connections a layer has, in the memory of a device: some are
// dropped, as many grow elsewhere, and all that belongs to the others moves along. Hosts have no
// need of them, since their memory is the host's.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

#include "spdnn/device.hpp"
#include "spdnn/random.hpp"

namespace spdnn {

/// The connections of a layer as `PatternView` has them, to be changed where they are.
struct PatternArrays {
  std::int64_t rows = 0, cols = 0, nnz = 0;
  std::int64_t* row_offsets = nullptr;
  std::uint32_t* col_indices = nullptr;
  std::int64_t* col_offsets = nullptr;
  std::uint32_t* row_indices = nullptr;
  std::uint32_t* entries = nullptr;
};

/// What orders numbers by magnitude, NaNs last, as whole numbers.
[[nodiscard]] SPDNN_HOST_DEVICE inline std::uint32_t magnitude_order(std::uint32_t float_bits) {
  return float_bits & 0x7fffffffU;
}

/// The place, row · cols + col, that draw `number` of a random growth names: each of `places`, up
/// to places / 2⁶⁴, equally likely. Draws are functions of their number, so that they can be made
/// in any order.
[[nodiscard]] SPDNN_HOST_DEVICE inline std::int64_t drawn_place(const Random& random,
                                                                std::int64_t number,
                                                                std::int64_t places) {
  constexpr std::uint64_t kLow = 0xffffffffU;
  const std::uint64_t x = random.at(static_cast<std::uint64_t>(number));
  const auto p = static_cast<std::uint64_t>(places);
  // The upper half of the product, from products of halves.
  const std::uint64_t low = (x & kLow) * (p & kLow);
  const std::uint64_t first = (x >> 32U) * (p & kLow) + (low >> 32U);
  const std::uint64_t second = (x & kLow) * (p >> 32U) + (first & kLow);
  return static_cast<std::int64_t>((x >> 32U) * (p >> 32U) + (first >> 32U) + (second >> 32U));
}

/// One change of a layer. All calls of it get the same, with the same workspace.
struct RewireArgs {
  PatternArrays pattern;    ///< of a sparse layer
  std::int64_t count = 0;   ///< connections to drop and to grow, at least 1; 3 places are free each
  std::int64_t draws = 0;   ///< `draw`: how many to make, from 1 to 2³² − 1; else 0
  std::int64_t places = 0;  ///< `weigh`: most places at once, below 2³²; else 0
  void* workspace = nullptr;
};

/// `drop`, then one way to grow, then `change`.
struct RewireKernels {
  std::size_t (*workspace_bytes)(const RewireArgs& args);
  /// The `count` smallest of `values` by magnitude are to go, of equal ones the first.
  void (*drop)(const RewireArgs& args, const float* values, Stream& stream);
  /// To grow where `gradient`, rows of all columns, is largest by magnitude, of equal ones first,
  /// NaNs being 0, among the places that are not kept. Called for all rows, some after the other;
  /// overwrites the gradient.
  void (*weigh)(const RewireArgs& args, Range rows, float* gradient, Stream& stream);
  /// To grow at the first `count` unlike places without a connection among those that are drawn.
  /// `*found`, in the device's memory, becomes how many there were, up to `count`: with less than
  /// that the change can't go on.
  void (*draw)(const RewireArgs& args, const Random& random, std::int64_t* found, Stream& stream);
  /// Makes the change: the pattern by rows and by columns, and each of `arrays`, in the order of
  /// the rows, where what has grown is 0.
  void (*change)(const RewireArgs& args, std::span<float* const> arrays, Stream& stream);
};

/// Null where connections are changed in the host's memory.
[[nodiscard]] const RewireKernels* rewire_kernels(DeviceKind kind);

}  // namespace spdnn
