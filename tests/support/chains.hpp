// Random runs of layers with their inputs, and the canonical outputs to hold chain kernels against.
#pragma once

#include <gtest/gtest.h>

#include "support/networks.hpp"

namespace spdnn::test {

/// A run of layers: `widths` are the features in, between and out.
struct ChainSpec {
  std::vector<std::int64_t> widths;
  std::int64_t row_nnz = 0;
  Rows pattern = Rows::grouped;
  bool shared_values = false;
  std::int64_t batch = 0;
  std::int64_t live = -1;  ///< images really there; −1: all, with no device-side count
};

class ChainProblem {
 public:
  ChainProblem(const ChainSpec& spec, std::int64_t panel_width, std::uint64_t seed)
      : spec_(spec), width_(panel_width), random_(seed) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (std::size_t l = 0; l + 1 < spec.widths.size(); ++l) {
      const std::int64_t rows = spec.widths[l + 1];
      weights.push_back(random_csr(
          {rows, spec.widths[l], spec.row_nnz, spec.pattern, spec.shared_values}, random_));
      const bool one_bias = (seed + l) % 3 == 0;
      bias.push_back(one_bias ? std::vector<float>{0.125F}
                              : random_floats(static_cast<std::size_t>(rows + 1), random_));
      epilogue.push_back(l % 2 == 0 ? Epilogue{0.0F, 2.5F} : Epilogue{-kInfinity, kInfinity});
    }
    if (seed % 2 == 0) epilogue.back() = {0.0F, 0.5F};  // where images die
    x = random_floats(static_cast<std::size_t>(panels(spec.widths.front()) + 1), random_);
    live = static_cast<std::int32_t>(spec.live);
  }

  /// Elements of panels with so many features.
  [[nodiscard]] std::int64_t panels(std::int64_t features) const {
    return Panels<float>{nullptr, features, spec_.batch, width_, nullptr}.size();
  }
  [[nodiscard]] std::int64_t layers() const { return std::ssize(weights); }
  [[nodiscard]] std::int64_t images() const {
    return spec_.live < 0 ? spec_.batch : std::min(spec_.live, spec_.batch);
  }
  /// A layer, with its bias where `at` holds a copy of it.
  [[nodiscard]] ChainLayer<float> layer(std::int64_t l, const float* at) const {
    return {weights[l].view(), {at, bias[l].size() == 1 ? 0 : 1}, epilogue[l]};
  }

  /// One image's activations after so many layers, as canonical chains.
  [[nodiscard]] std::vector<float> after(std::int64_t count, std::int64_t image) const {
    const Panels<const float> in{x.data(), spec_.widths.front(), spec_.batch, width_, nullptr};
    std::vector<float> values(static_cast<std::size_t>(in.features));
    for (std::int64_t f = 0; f < in.features; ++f) values[f] = in.at(f, image);
    for (std::int64_t l = 0; l < count; ++l) values = next(l, values);
    return values;
  }

  /// Holds outputs and flags against canonical chains. Panels past the living images must hold
  /// `untouched`.
  void check(const std::vector<float>& outputs, const std::vector<std::uint8_t>& alive,
             float untouched) const {
    const std::int64_t features = spec_.widths.back();
    const Panels<const float> out{outputs.data(), features, spec_.batch, width_, nullptr};
    for (std::int64_t i = 0; i < images(); ++i) {
      const std::vector<float> values = after(layers(), i);
      bool any = false;
      for (std::int64_t row = 0; row < features; ++row) {
        any = any || values[row] != 0.0F;
        ASSERT_EQ(out.at(row, i), values[row]) << "row " << row << " image " << i;
      }
      ASSERT_EQ(alive[i], any ? 1 : 0) << "image " << i;
    }
    const std::int64_t first = (images() + width_ - 1) / width_ * width_ * features;
    for (std::int64_t k = first; k < out.size(); ++k) {
      ASSERT_EQ(outputs[k], untouched) << "a panel past the living images was written";
    }
  }

  std::vector<Csr> weights;
  std::vector<std::vector<float>> bias;
  std::vector<Epilogue> epilogue;
  std::vector<float> x;
  std::int32_t live = 0;

 private:
  [[nodiscard]] std::vector<float> next(std::int64_t l, const std::vector<float>& values) const {
    std::vector<float> outputs;
    for (std::int64_t row = 0; row < weights[l].rows(); ++row) {
      outputs.push_back(expected_output(weights[l].view(), row,
                                        bias[l][bias[l].size() == 1 ? 0 : row], epilogue[l],
                                        [&](std::int64_t col) { return values[col]; })
                            .canonical);
    }
    return outputs;
  }

  ChainSpec spec_;
  std::int64_t width_;
  std::mt19937_64 random_;
};

}  // namespace spdnn::test
