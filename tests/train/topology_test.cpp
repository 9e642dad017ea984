// Which connections layers start with, and how they change.
#include "topology.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <span>

#include "rewire.hpp"
#include "support/scratch.hpp"
#include "train/images.hpp"
#include "train/problems.hpp"

namespace spdnn {
namespace {

using train::GrowLargest;
using train::layer_densities;
using train::make_layers;
using train::NextPattern;
using train::Pattern;
using train::StartLayer;
using train::TrainLayer;

TrainSpec spec_of(std::vector<std::int64_t> outputs, double density) {
  TrainSpec spec;
  for (const std::int64_t n : outputs) {
    LayerSpec layer;
    layer.outputs = n;
    layer.density = density;
    spec.layers.push_back(layer);
  }
  return spec;
}

TEST(Topology, RandomLayersHaveTheirShareAndFollowTheSeed) {
  TrainSpec spec = spec_of({300, 200}, 0.1);
  const std::vector<TrainLayer> layers = make_layers(spec, 400, {});
  ASSERT_EQ(layers.size(), 2U);
  EXPECT_EQ(layers[0].pattern.nnz(), 12'000);
  EXPECT_EQ(layers[1].pattern.nnz(), 6'000);
  EXPECT_EQ(make_layers(spec, 400, {})[0].pattern.col_indices(), layers[0].pattern.col_indices());
  spec.seed = 2;
  EXPECT_NE(make_layers(spec, 400, {})[0].pattern.col_indices(), layers[0].pattern.col_indices());
  // Columns are drawn evenly: 12,000 balls in 4 quarters of 3,000, deviation 47.
  std::vector<int> quarters(4);
  for (const std::uint32_t col : layers[0].pattern.col_indices()) ++quarters[col / 100];
  for (const int quarter : quarters) EXPECT_NEAR(quarter, 3'000, 250);
}

TEST(Topology, ErdosRenyiKeepsTheSumAndFillsSmallLayers) {
  TrainSpec spec = spec_of({1024, 1024, 10}, 0.05);
  spec.density_rule = DensityRule::erdos_renyi;
  const std::vector<double> d = layer_densities(spec, 784);
  const std::vector<double> sizes = {784.0 * 1024, 1024.0 * 1024, 10.0 * 1024};
  double total = 0.0;
  double asked = 0.0;
  for (std::size_t l = 0; l < 3; ++l) {
    total += d[l] * sizes[l];
    asked += 0.05 * sizes[l];
    EXPECT_LE(d[l], 1.0);
  }
  EXPECT_NEAR(total, asked, 1e-6 * asked);
  EXPECT_NEAR(d[0] * sizes[0] / (d[1] * sizes[1]), (784.0 + 1024) / (1024.0 + 1024), 1e-9);
  EXPECT_EQ(d[2], 1.0);
}

TEST(Topology, RadixNetHasTheChallengesConnections) {
  TrainSpec spec = spec_of({64, 64}, 1.0);
  for (LayerSpec& layer : spec.layers) {
    layer.topology = Topology::radixnet;
    layer.fold = 4;
  }
  const std::vector<TrainLayer> layers = make_layers(spec, 64, {});
  for (std::int64_t row = 0; row < 64; ++row) EXPECT_EQ(layers[1].pattern.fan_in(row), 8);
  EXPECT_THROW(static_cast<void>(make_layers(spec, 63, {})), InputError);
}

TEST(Topology, MasksComeFromAFile) {
  const test::ScratchDir folder;
  const auto file = folder.path() / "mask.spdnn";
  write_cache(file, {make_csr(2, 3, {0, 2, 3}, {2, 0, 1}, {1.0F, 2.0F, 3.0F})}, "test");
  TrainSpec spec = spec_of({2}, 1.0);
  spec.layers[0].topology = Topology::mask;
  spec.layers[0].mask = file;
  const Pattern pattern = make_layers(spec, 3, {})[0].pattern;
  EXPECT_EQ(pattern.row_offsets(), (std::vector<std::int64_t>{0, 2, 3}));
  EXPECT_EQ(pattern.col_indices(), (std::vector<std::uint32_t>{0, 2, 1}));
  EXPECT_THROW(static_cast<void>(make_layers(spec, 4, {})), InputError);
}

TEST(Topology, PruningKeepsTheLargestWeights) {
  const StartLayer dense = {Pattern::dense(2, 3), {0.1F, -5.0F, 0.3F, 4.0F, 0.0F, -0.3F}, {1, 2}};
  TrainSpec spec = spec_of({2}, 0.5);
  spec.layers[0].topology = Topology::magnitude;
  const Pattern pattern = make_layers(spec, 3, {dense})[0].pattern;
  EXPECT_EQ(pattern.row_offsets(), (std::vector<std::int64_t>{0, 2, 3}));
  EXPECT_EQ(pattern.col_indices(), (std::vector<std::uint32_t>{1, 2, 0}));
  EXPECT_EQ(values_on(pattern, dense), (std::vector<float>{-5.0F, 0.3F, 4.0F}));
  EXPECT_THROW(static_cast<void>(make_layers(spec, 3, {})), InputError);
}

/// Before any column is looked at: the first row would have entries that are not there.
TEST(Topology, OffsetsThatFallAreRefused) {
  try {
    static_cast<void>(Pattern(2, 4, {0, std::int64_t{1} << 40, 3}, {0, 1, 2}));
    FAIL() << "a pattern with entries that are not there";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("the offsets fall after row 1"), std::string::npos)
        << error.what();
  }
}

/// The smallest go, the largest scores come, and what stays keeps its entry.
TEST(Rewire, DropsTheSmallestAndGrowsTheLargest) {
  const Pattern pattern(2, 4, {0, 2, 4}, {0, 2, 1, 3});
  const float values[] = {0.1F, -2.0F, 3.0F, -0.2F};
  // Places:                 kept at (0,2) and (1,1); the largest others are (1,0) and (0,3).
  const std::vector<float> gradient = {0.5F, 0, 9, -0.7F, -0.8F, 9, 0.1F, 0.6F};
  GrowLargest choice(pattern, values, 2);
  choice.weigh(std::span(gradient).first(4));
  choice.weigh(std::span(gradient).last(4));
  const NextPattern next = choice.finish();
  EXPECT_EQ(next.row_offsets, (std::vector<std::int64_t>{0, 2, 4}));
  EXPECT_EQ(next.col_indices, (std::vector<std::uint32_t>{2, 3, 0, 1}));
  EXPECT_EQ(next.source, (std::vector<std::int64_t>{1, -1, -1, 2}));
  EXPECT_EQ(next.grown, 2);
}

/// However many rows are weighed at a time, and with many equal gradients.
TEST(Rewire, GrowsWhatAllGradientsTogetherSay) {
  std::mt19937_64 random(3);
  const Pattern pattern = test::random_pattern(40, 30, 0.2, random);
  const std::vector<float> values = test::random_values<float>(pattern.nnz(), random);
  std::vector<float> gradient(40 * 30);
  for (float& g : gradient) g = static_cast<float>(random() % 19) - 9.0F;
  gradient[77] = std::numeric_limits<float>::quiet_NaN();
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{1}, pattern.nnz() / 2}) {
    std::vector<std::uint32_t> by_size(values.size());
    std::iota(by_size.begin(), by_size.end(), 0U);
    std::stable_sort(by_size.begin(), by_size.end(), [&](std::uint32_t a, std::uint32_t b) {
      return std::abs(values[a]) < std::abs(values[b]);
    });
    // Places by what they are worth; those that stay connected are worth nothing.
    std::vector<float> worth;
    for (const float g : gradient) worth.push_back(std::isnan(g) ? 0.0F : std::abs(g));
    std::set<std::int64_t> after;
    for (std::size_t i = static_cast<std::size_t>(count); i < by_size.size(); ++i) {
      const auto row = std::upper_bound(pattern.row_offsets().begin(), pattern.row_offsets().end(),
                                        std::int64_t{by_size[i]}) -
                       pattern.row_offsets().begin() - 1;
      after.insert(row * 30 + pattern.col_indices()[by_size[i]]);
    }
    for (const std::int64_t place : after) worth[place] = -1.0F;
    std::vector<std::int64_t> places(worth.size());
    std::iota(places.begin(), places.end(), std::int64_t{0});
    std::stable_sort(places.begin(), places.end(),
                     [&](std::int64_t a, std::int64_t b) { return worth[a] > worth[b]; });
    after.insert(places.begin(), places.begin() + count);
    for (const std::int64_t rows : {1, 7, 40}) {
      GrowLargest choice(pattern, values.data(), count);
      const std::span<const float> all(gradient);
      const auto part = static_cast<std::size_t>(rows * 30);
      for (std::size_t first = 0; first < all.size(); first += part) {
        choice.weigh(all.subspan(first, std::min(part, all.size() - first)));
      }
      const NextPattern next = choice.finish();
      std::set<std::int64_t> found;
      for (std::int64_t row = 0; row < 40; ++row) {
        for (std::int64_t k = next.row_offsets[row]; k < next.row_offsets[row + 1]; ++k) {
          found.insert(row * 30 + next.col_indices[k]);
        }
      }
      EXPECT_EQ(found, after);
      EXPECT_EQ(next.grown, count);
    }
  }
}

TEST(Rewire, RandomGrowthTakesPlacesThatWereFree) {
  std::mt19937_64 random(4);
  const Pattern pattern = test::random_pattern(50, 70, 0.1, random);
  const std::vector<float> values = test::random_values<float>(pattern.nnz(), random);
  const std::int64_t count = pattern.nnz() / 3;
  const NextPattern next = grow_random(pattern, values.data(), count, 1, 2);
  const Pattern after(50, 70, next.row_offsets, next.col_indices);
  EXPECT_EQ(after.nnz(), pattern.nnz());
  std::set<std::pair<std::int64_t, std::uint32_t>> old;
  for (std::int64_t row = 0; row < 50; ++row) {
    for (std::int64_t k = pattern.row_offsets()[row]; k < pattern.row_offsets()[row + 1]; ++k) {
      old.emplace(row, pattern.col_indices()[k]);
    }
  }
  std::int64_t grown = 0;
  float smallest_kept = 1e9F;
  for (std::int64_t row = 0; row < 50; ++row) {
    for (std::int64_t k = after.row_offsets()[row]; k < after.row_offsets()[row + 1]; ++k) {
      const bool is_new = next.source[k] < 0;
      grown += is_new ? 1 : 0;
      EXPECT_NE(old.contains({row, after.col_indices()[k]}), is_new);
      if (!is_new) smallest_kept = std::min(smallest_kept, std::abs(values[next.source[k]]));
    }
  }
  EXPECT_EQ(grown, count);
  std::vector<float> magnitudes;
  for (const float v : values) magnitudes.push_back(std::abs(v));
  std::sort(magnitudes.begin(), magnitudes.end());
  EXPECT_EQ(smallest_kept, magnitudes[static_cast<std::size_t>(count)]);
}

}  // namespace
}  // namespace spdnn
