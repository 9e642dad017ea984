// Convolutions made up for tests, and what their kernels must give: sums in long double, and the
// rounding bound.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "spdnn/model.hpp"
#include "train/problems.hpp"

namespace spdnn::test {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr Epilogue kRelu = {0.0F, kInfinity};
inline constexpr Epilogue kClipped = {0.0F, 0.75F};

struct ConvCase {
  Window2d window;
  std::int64_t filters;
  double density;  ///< 1: dense filters
  std::int64_t batch;
};

inline std::string name_of(const ConvCase& c) {
  const Window2d& w = c.window;
  return fmt::format("{}x{}x{} by {}x{}/{} pad {},{} to {}x{}x{} density {} batch {}", w.channels,
                     w.in_height, w.in_width, w.kernel_height, w.kernel_width, w.stride, w.pad_top,
                     w.pad_left, c.filters, w.out_height, w.out_width, c.density, c.batch);
}

inline std::vector<Window2d> windows() {
  std::vector<Window2d> all = {make_window(3, 8, 8, 3, 1, {}),  make_window(2, 7, 9, 3, 1, 0),
                               make_window(3, 9, 6, 3, 2, {}),  make_window(1, 11, 10, 5, 3, 2),
                               make_window(4, 5, 5, 1, 1, 0),   make_window(2, 6, 7, 1, 2, 0),
                               make_window(2, 7, 7, 2, 3, 1),   make_window(5, 4, 4, 3, 1, {}),
                               make_window(2, 1, 1, 3, 1, {}),  make_window(1, 13, 3, 7, 1, 6),
                               make_window(17, 3, 2, 2, 1, {}), make_window(2, 6, 6, 4, 4, 0)};
  Window2d wide = make_window(2, 6, 12, 3, 1, {});
  wide.kernel_width = 5;  // other than it is high, and further outside
  wide.pad_left = 3;
  all.push_back(wide);
  return all;
}

inline std::vector<ConvCase> conv_cases() {
  std::vector<ConvCase> all;
  for (const Window2d& window : windows()) {
    for (const double density : {0.25, 1.0}) all.push_back({window, 7, density, 35});
  }
  const Window2d window = make_window(3, 5, 6, 3, 1, {});
  for (const std::int64_t batch : {0, 1, 8, 9, 16, 24, 32, 40, 57, 70}) {
    all.push_back({window, 5, 0.3, batch});
    all.push_back({window, 5, 1.0, batch});
  }
  for (const std::int64_t filters : {1, 2, 6, 13}) {
    all.push_back({window, filters, 0.3, 3});
    all.push_back({window, filters, 1.0, 3});
  }
  all.push_back({window, 4, 0.0, 33});  // no connection at all
  return all;
}

template <class T>
struct ConvProblem {
  train::TrainLayer layer;
  std::vector<T> values;
  std::vector<Wide<T>> bias;
  OwnedPanels<T> x, dz;
  Epilogue below = kClipped;

  ConvProblem(const ConvCase& c, std::int64_t width, std::mt19937_64& random)
      : layer(train::conv_layer(
            c.window,
            layer_pattern(c.filters, c.window.channels * c.window.taps(), c.density, random),
            kRelu)),
        values(random_values<T>(layer.pattern.nnz(), random)),
        bias(random_values<Wide<T>>(c.filters, random)),
        x(c.window.inputs(), c.batch, width),
        dz(c.filters * c.window.out_pixels(), c.batch, width) {
    fill_random(x, T{3}, random);
    fill_random(dz, T{0}, random);
  }
  [[nodiscard]] const Window2d& window() const {
    return std::get<train::ConvForm>(layer.form).window;
  }
  [[nodiscard]] LinearView<T> view() const {
    return {layer.pattern.view(), values.data(), bias.data()};
  }

  /// Calls `visit(entry, row, out pixel, input)` for every product of the convolution, row by row
  /// and pixel by pixel in the order of entries.
  template <class Visit>
  void for_each_product(const Visit& visit) const {
    const Window2d& w = window();
    const train::Pattern& p = layer.pattern;
    for (std::int64_t row = 0; row < p.rows(); ++row) {
      const std::int64_t begin = p.is_dense() ? row * p.cols() : p.row_offsets()[row];
      for (std::int64_t pixel = 0; pixel < w.out_pixels(); ++pixel) {
        for (std::int64_t k = begin; k < begin + p.fan_in(row); ++k) {
          const std::int64_t col = p.is_dense() ? k - begin : p.col_indices()[k];
          const std::int64_t tap = col % w.taps();
          const std::int64_t in_y =
              pixel / w.out_width * w.stride + tap / w.kernel_width - w.pad_top;
          const std::int64_t in_x =
              pixel % w.out_width * w.stride + tap % w.kernel_width - w.pad_left;
          if (in_y < 0 || in_y >= w.in_height || in_x < 0 || in_x >= w.in_width) continue;
          visit(k, row, pixel, (col / w.taps() * w.in_height + in_y) * w.in_width + in_x);
        }
      }
    }
  }
};

template <class T>
struct ConvOutputs {
  OwnedPanels<T> y, dx;
  std::vector<Wide<T>> dvalues, dbias;
  std::vector<Wide<T>> dvalues_twice, dbias_twice;  ///< after the same was added to it
};

template <class T>
void check(const ConvProblem<T>& p, const ConvOutputs<T>& out, bool canonical) {
  const std::int64_t pixels = p.window().out_pixels();
  std::vector<Sum> dvalues(p.values.size());
  std::vector<Sum> dbias(p.bias.size());
  for (std::int64_t image = 0; image < p.x.view.batch; ++image) {
    std::vector<Sum> y(static_cast<std::size_t>(p.dz.view.features));
    std::vector<Sum> dx(static_cast<std::size_t>(p.x.view.features));
    std::vector<Wide<T>> chain(y.size());
    p.for_each_product([&](std::int64_t k, std::int64_t row, std::int64_t pixel, std::int64_t in) {
      const std::int64_t feature = row * pixels + pixel;
      const Wide<T> x = p.x.view.at(in, image);
      const Wide<T> dz = p.dz.view.at(feature, image);
      const Wide<T> value = p.values[k];
      y[feature].add(value, x);
      dx[in].add(value, dz);
      dvalues[k].add(dz, x);
      chain[feature] = std::fma(value, x, chain[feature]);
    });
    for (std::int64_t f = 0; f < std::ssize(y); ++f) {
      const Wide<T> bias = p.bias[f / pixels];
      y[f].add(1.0, bias);
      dbias[f / pixels].add(1.0, p.dz.view.at(f, image));
      const Wide<T> got = out.y.view.at(f, image);
      expect_within<T>(got, y[f], std::max(static_cast<double>(y[f].value), 0.0));
      if (canonical) {
        ASSERT_EQ(got, std::max(chain[f] + bias, Wide<T>{0}));
      }
    }
    for (std::int64_t in = 0; in < std::ssize(dx); ++in) {
      const Wide<T> x = p.x.view.at(in, image);
      const bool inside = x > Wide<T>{p.below.lower} && x < Wide<T>{p.below.upper};
      expect_within<T>(out.dx.view.at(in, image), dx[in],
                       inside ? static_cast<double>(dx[in].value) : 0.0);
    }
  }
  const auto check_sums = [](const auto& got, const auto& got_twice, const std::vector<Sum>& sums) {
    for (std::size_t i = 0; i < sums.size(); ++i) {
      const Sum twice = sums[i].twice();
      expect_within<T, Wide<T>>(got[i], sums[i], static_cast<double>(sums[i].value));
      expect_within<T, Wide<T>>(got_twice[i], twice, static_cast<double>(twice.value));
    }
  };
  check_sums(out.dvalues, out.dvalues_twice, dvalues);
  check_sums(out.dbias, out.dbias_twice, dbias);
}

}  // namespace spdnn::test
