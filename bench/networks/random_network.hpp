// Networks without structure: random columns, random normal weights, rows of unlike lengths.
#pragma once

#include <vector>

#include "spdnn/model.hpp"

namespace spdnn::bench {

struct RandomNetworkSpec {
  std::int64_t neurons = 1024;
  std::int64_t layers = 1;
  std::int64_t most_per_row = 64;  ///< a row has 1 … this many nonzeros
  std::uint64_t seed = 1;
};

/// The patterns and standard normal values of a network, before they are scaled.
class RandomNetwork {
 public:
  explicit RandomNetwork(const RandomNetworkSpec& spec);
  /// All layers with every value multiplied by `scale`.
  [[nodiscard]] std::vector<Csr> scaled(float scale) const;

 private:
  struct Pattern {
    std::vector<std::int64_t> row_offsets;
    std::vector<std::uint32_t> col_indices;
    std::vector<float> values;
  };
  RandomNetworkSpec spec_;
  std::vector<Pattern> layers_;
};

/// Share of `images` with a nonzero output after ReLU layers with one bias for all.
[[nodiscard]] double share_alive(const std::vector<Csr>& weights, float bias, const Csr& images);

/// The scale, found by bisection, at which about half of `images` are alive at the end.
[[nodiscard]] float scale_for_half(const RandomNetwork& network, float bias, const Csr& images);

}  // namespace spdnn::bench
