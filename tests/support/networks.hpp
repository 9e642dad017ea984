// Random matrices, models and images for tests, all from a seed, and exact arithmetic to hold
// kernels against.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "spdnn/model.hpp"

namespace spdnn::test {

/// How long the rows of a random matrix are.
enum class Rows { equal, irregular, one_dense, empty, grouped };  // grouped: rows repeat lists

struct MatrixSpec {
  std::int64_t rows = 0, cols = 0, row_nnz = 0;
  Rows pattern = Rows::irregular;
  bool shared_value = false;
};

/// A random CSR matrix; the columns of a row are in random order, since kernels must keep it.
inline Csr random_csr(const MatrixSpec& spec, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> cols;
  std::vector<float> values;
  const std::int64_t lists = spec.pattern == Rows::grouped ? 1 + spec.rows / 12 : spec.rows;
  for (std::int64_t row = 0; row < spec.rows; ++row) {
    if (row >= lists) {
      const auto of = static_cast<std::size_t>(random() % static_cast<std::uint64_t>(lists));
      for (std::int64_t k = offsets[of]; k < offsets[of + 1]; ++k) {
        const std::uint32_t col = cols[static_cast<std::size_t>(k)];
        cols.push_back(col);
        values.push_back(spec.shared_value ? 0.3F : normal(random));
      }
      offsets.push_back(std::ssize(cols));
      continue;
    }
    std::int64_t length = std::min(spec.row_nnz, spec.cols);
    const bool varies = spec.pattern == Rows::irregular || spec.pattern == Rows::grouped;
    if (varies && length > 0) {
      length = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(length + 1));
    }
    if (spec.pattern == Rows::one_dense) length = row == spec.rows / 2 ? spec.cols : 1;
    if (spec.pattern == Rows::empty || spec.cols == 0) length = 0;
    std::vector<std::uint32_t> all(static_cast<std::size_t>(spec.cols));
    for (std::size_t c = 0; c < all.size(); ++c) all[c] = static_cast<std::uint32_t>(c);
    for (std::int64_t k = 0; k < length; ++k) {
      std::swap(all[k], all[k + random() % (all.size() - static_cast<std::size_t>(k))]);
      cols.push_back(all[k]);
      values.push_back(spec.shared_value ? 0.3F : normal(random));
    }
    offsets.push_back(std::ssize(cols));
  }
  return make_csr(spec.rows, spec.cols, std::move(offsets), std::move(cols), std::move(values));
}

/// Numbers around 0, each the difference of two that are uniform in [0, 2).
inline std::vector<float> random_floats(std::size_t count, std::mt19937_64& random) {
  std::vector<float> values(count);
  for (float& value : values) {
    const std::uint64_t bits = random();
    value = static_cast<float>(bits >> 41) * 0x1p-22F -
            static_cast<float>((bits >> 8) & 0x7FFFFF) * 0x1p-22F;
  }
  return values;
}

/// γ(n) = n·u / (1 − n·u), u = 2⁻²⁴: the bound on the relative error of n fp32 operations.
inline double gamma(std::int64_t n) {
  const double nu = static_cast<double>(n) * std::ldexp(1.0, -24);
  return nu / (1.0 - nu);
}

/// One output three ways: in float64, as a canonical fp32 FMA chain, and the bound between them.
struct Expected {
  double exact = 0.0;
  float canonical = 0.0F;
  double bound = 0.0;      ///< of fp32 arithmetic in any order
  double magnitude = 0.0;  ///< |W||x|
};

/// `x(col)` is the input of one image.
template <class Input>
Expected expected_output(const CsrView& w, std::int64_t row, float bias, const Epilogue& h,
                         const Input& x) {
  double sum = 0.0;
  double magnitude = 0.0;
  float chain = 0.0F;
  for (std::int64_t k = w.row_begin(row); k < w.row_begin(row + 1); ++k) {
    const double value = w.value(k);
    const float input = x(w.col(k));
    sum += value * static_cast<double>(input);
    magnitude += std::abs(value * static_cast<double>(input));
    chain = std::fma(static_cast<float>(value), input, chain);
  }
  Expected e;
  const auto clamp = [&](auto v) {
    using T = decltype(v);
    return std::fmin(std::fmax(v, static_cast<T>(h.lower)), static_cast<T>(h.upper));
  };
  e.exact = clamp(sum + static_cast<double>(bias));
  e.canonical = clamp(chain + bias);
  const std::int64_t length = w.row_begin(row + 1) - w.row_begin(row);
  e.magnitude = magnitude;
  e.bound = gamma(length + 2) * (magnitude + std::abs(static_cast<double>(bias)));
  return e;
}

}  // namespace spdnn::test
