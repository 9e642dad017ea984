// Small networks for the compiler's tests, and what they compute.
#pragma once

#include <initializer_list>
#include <limits>
#include <utility>
#include <vector>

#include "spdnn/compile.hpp"
#include "support/networks.hpp"

namespace spdnn::test {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr Epilogue kIdentity = {-kInfinity, kInfinity};
inline constexpr Epilogue kRelu = {0.0F, kInfinity};

/// A row as (column, value) pairs.
using Row = std::vector<std::pair<std::uint32_t, float>>;

inline SparseLinear layer_of(std::int64_t inputs, const std::vector<Row>& rows,
                             std::vector<float> bias, Epilogue activation) {
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> cols;
  std::vector<float> values;
  for (const Row& row : rows) {
    for (const auto& [col, value] : row) {
      cols.push_back(col);
      values.push_back(value);
    }
    offsets.push_back(std::ssize(cols));
  }
  return {
      make_csr(std::ssize(rows), inputs, std::move(offsets), std::move(cols), std::move(values)),
      std::move(bias), activation};
}

inline Model model_of(std::vector<SparseLinear> layers) {
  Model model;
  for (SparseLinear& layer : layers) model.layers.emplace_back(std::move(layer));
  validate(model);
  return model;
}

inline const SparseLinear& linear(const Model& model, std::int64_t index) {
  return std::get<SparseLinear>(model.layers[index]);
}

/// Compiles with the passes a setting stands for, where all that can be left out pays.
inline CompiledModel compile_with(const Model& model, std::string_view passes) {
  CompileRequest request;
  request.passes = passes_for(passes);
  request.least_gain = 0.0;
  request.cost = {1.0, 1.0, 1.0};
  return compile(model, request);
}

/// Whether two networks consist of the very same arrays.
inline bool same_arrays(const Model& a, const Model& b) {
  if (a.layers.size() != b.layers.size()) return false;
  for (std::int64_t l = 0; l < std::ssize(a.layers); ++l) {
    if (linear(a, l).weights.storage() != linear(b, l).weights.storage()) return false;
  }
  return true;
}

/// A network's outputs for one image, in three ways.
struct Evaluated {
  std::vector<float> canonical;  ///< fp32 FMA chains in stored order
  std::vector<double> exact;     ///< float64
  std::vector<double> bound;     ///< of |fp32 in any order − float64|, through all layers
};

inline Evaluated evaluate(const Model& model, const std::vector<float>& image) {
  Evaluated x = {image, {image.begin(), image.end()}, std::vector<double>(image.size(), 0.0)};
  for (std::int64_t l = 0; l < std::ssize(model.layers); ++l) {
    const SparseLinear& layer = linear(model, l);
    const CsrView& w = layer.weights.view();
    const Epilogue& h = layer.activation;
    Evaluated y;
    for (std::int64_t row = 0; row < w.rows; ++row) {
      const float bias = layer.bias[layer.bias.size() == 1 ? 0 : row];
      float chain = 0.0F;
      double sum = 0.0;
      double size = std::abs(static_cast<double>(bias));
      double inherited = 0.0;
      for (std::int64_t k = w.row_begin(row); k < w.row_begin(row + 1); ++k) {
        const auto c = static_cast<std::size_t>(w.col(k));
        const double value = w.value(k);
        chain = std::fma(static_cast<float>(value), x.canonical[c], chain);
        sum += value * x.exact[c];
        size += std::abs(value) * (std::abs(x.exact[c]) + x.bound[c]);
        inherited += std::abs(value) * x.bound[c];
      }
      y.canonical.push_back(std::fmin(std::fmax(chain + bias, h.lower), h.upper));
      y.exact.push_back(
          std::fmin(std::fmax(sum + static_cast<double>(bias), static_cast<double>(h.lower)),
                    static_cast<double>(h.upper)));
      // One γ more than a sum's own, for a merged weight that was rounded.
      y.bound.push_back(inherited + gamma(w.row_begin(row + 1) - w.row_begin(row) + 3) * size);
    }
    x = std::move(y);
  }
  return x;
}

}  // namespace spdnn::test
