// Random numbers that are equal on every machine: integer arithmetic alone, no standard
// distributions, whose results the C++ standard leaves open.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn {

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a counter put through a 64-bit mixing function.
class Random {
 public:
  /// The sequence number `stream` of a seed; sequences of one seed are unrelated.
  Random(std::uint64_t seed, std::uint64_t stream) : state_(mix(mix(seed + kStep) + stream)) {}

  std::uint64_t next() { return mix(state_ += kStep); }

  /// What `next` gives after `n` others, which nobody need draw.
  [[nodiscard]] SPDNN_HOST_DEVICE std::uint64_t at(std::uint64_t n) const {
    return mix(state_ + (n + 1) * kStep);
  }

  /// Uniform in [0, bound), bound > 0, without bias (Lemire, ACM TOMACS 2019).
  std::uint32_t below(std::uint32_t bound) {
    const std::uint32_t biased = (0U - bound) % bound;
    for (;;) {
      const std::uint64_t product = (next() >> 32U) * bound;
      if (static_cast<std::uint32_t>(product) >= biased) {
        return static_cast<std::uint32_t>(product >> 32U);
      }
    }
  }

  /// Uniform in [low, high) up to rounding, from 53 random bits.
  double between(double low, double high) {
    return low + (high - low) * (static_cast<double>(next() >> 11U) * 0x1p-53);
  }

 private:
  static constexpr std::uint64_t kStep = 0x9E3779B97F4A7C15U;

  static SPDNN_HOST_DEVICE std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27U)) * 0x94D049BB133111EBU;
    return x ^ (x >> 31U);
  }

  std::uint64_t state_;
};

/// The numbers 0 … count − 1 in random order (Fisher–Yates).
inline std::vector<std::uint32_t> random_permutation(std::uint32_t count, Random random) {
  std::vector<std::uint32_t> order(count);
  for (std::uint32_t i = 0; i < count; ++i) order[i] = i;
  for (std::uint32_t i = count; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  return order;
}

}  // namespace spdnn
