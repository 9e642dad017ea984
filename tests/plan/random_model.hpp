// Networks of random layers, for tests of what partitions them.
#pragma once

#include "support/networks.hpp"

namespace spdnn::test {

/// Layers between `widths`, of up to `row_nnz` weights a row.
inline Model random_layers(const std::vector<std::int64_t>& widths, std::int64_t row_nnz,
                           std::uint64_t seed, Rows pattern = Rows::irregular) {
  std::mt19937_64 random(seed);
  Model model;
  for (std::size_t l = 0; l + 1 < widths.size(); ++l) {
    model.layers.push_back(
        SparseLinear{random_csr({widths[l + 1], widths[l], row_nnz, pattern}, random), {0.0F}, {}});
  }
  return model;
}

}  // namespace spdnn::test
