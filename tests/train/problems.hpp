// Random patterns, networks and batches for tests of training, all from a seed.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "batch_pass.hpp"

namespace spdnn::test {

/// Each connection is there with probability `density`; rows and columns without any occur.
inline train::Pattern random_pattern(std::int64_t rows, std::int64_t cols, double density,
                                     std::mt19937_64& random) {
  std::bernoulli_distribution there(density);
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::uint32_t> indices;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t col = 0; col < cols; ++col) {
      if (there(random)) indices.push_back(static_cast<std::uint32_t>(col));
    }
    offsets.push_back(std::ssize(indices));
  }
  return {rows, cols, std::move(offsets), std::move(indices)};
}

/// The same, or a dense pattern where `density` is 1.
inline train::Pattern layer_pattern(std::int64_t rows, std::int64_t cols, double density,
                                    std::mt19937_64& random) {
  return density < 1.0 ? random_pattern(rows, cols, density, random)
                       : train::Pattern::dense(rows, cols);
}

template <class T>
std::vector<T> random_values(std::int64_t count, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = T(static_cast<Wide<T>>(normal(random)));
  return values;
}

/// A features × batch matrix in panels, with its memory.
template <class T>
struct OwnedPanels {
  std::vector<T> data;
  Panels<T> view;
  OwnedPanels(std::int64_t features, std::int64_t batch, std::int64_t width) {
    view = {nullptr, features, batch, width, nullptr};
    data.resize(static_cast<std::size_t>(view.size()));
    view.data = data.data();
  }
  OwnedPanels(const OwnedPanels&) = delete;
  OwnedPanels& operator=(const OwnedPanels&) = delete;
};

/// Normal values for the images, `rest` in the lanes that hold none.
template <class T>
void fill_random(OwnedPanels<T>& panels, T rest, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  const Panels<T>& p = panels.view;
  for (std::int64_t lane = 0; lane < p.count() * p.width; ++lane) {
    for (std::int64_t f = 0; f < p.features; ++f) {
      p.at(f, lane) = lane < p.batch ? T(static_cast<Wide<T>>(normal(random))) : rest;
    }
  }
}

/// The bound γ(n) on the relative error of n operations on numbers stored as T.
template <class T>
double gamma(std::int64_t n) {
  const double u = static_cast<double>(std::numeric_limits<Wide<T>>::epsilon()) / 2.0;
  return static_cast<double>(n) * u / (1.0 - static_cast<double>(n) * u);
}

/// What storing a number up to `magnitude` as T may add to its error: half a unit in the last place
/// of 11 or 8 bits, and of the smallest number there is.
template <class T>
double storing_error(double magnitude) {
  if constexpr (std::is_same_v<T, Half>) return 0x1p-11 * magnitude + 0x1p-25;
  if constexpr (std::is_same_v<T, Bfloat16>) return 0x1p-8 * magnitude + 0x1p-134;
  return 0.0;
}

/// A sum as it should be, and what its rounding bound needs.
struct Sum {
  long double value = 0.0L;
  double magnitude = 0.0;
  std::int64_t terms = 0;
  void add(double a, double b) {
    value += static_cast<long double>(a) * b;
    magnitude += std::abs(a * b);
    ++terms;
  }
  /// All terms once more.
  [[nodiscard]] Sum twice() const { return {2 * value, 2 * magnitude, 2 * terms}; }
};

/// Of a sum of numbers stored as T, that is then stored as `Stored`.
template <class T, class Stored = T>
void expect_within(double got, const Sum& sum, double exact) {
  const double summed = gamma<T>(sum.terms + 2) * sum.magnitude;
  ASSERT_LE(std::abs(got - exact), summed + storing_error<Stored>(std::abs(exact) + summed));
}

}  // namespace spdnn::test
