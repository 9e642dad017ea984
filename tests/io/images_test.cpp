// Graph Challenge input made of grey images, against a discrete Fourier transform written out, and
// against the official images; drawn digits.
#include <gtest/gtest.h>

#include <complex>
#include <numbers>
#include <numeric>
#include <random>
#include <set>

#include "real_data.hpp"
#include "scratch.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

using test::error_of;
using test::expect_contains;

/// One dimension by the book: transform, cut or zero-pad the spectrum, transform back.
std::vector<double> resample(const std::vector<double>& samples, std::int64_t to) {
  const std::int64_t from = std::ssize(samples);
  const std::int64_t kept = std::min(from, to);
  const auto turn = [](std::int64_t k, std::int64_t i, std::int64_t n) {
    const double angle = 2 * std::numbers::pi * static_cast<double>(k * i) / static_cast<double>(n);
    return std::complex<double>(std::cos(angle), std::sin(angle));
  };
  std::vector<double> out(static_cast<std::size_t>(to));
  for (std::int64_t k = -(kept / 2); k <= kept / 2; ++k) {
    std::complex<double> coefficient = 0;
    for (std::int64_t i = 0; i < from; ++i) coefficient += samples[i] * turn(-k, i, from);
    if (2 * std::abs(k) == kept) coefficient /= 2;
    for (std::int64_t o = 0; o < to; ++o) {
      out[o] += (coefficient * turn(k, o, to)).real() / static_cast<double>(from);
    }
  }
  return out;
}

/// Resized image, column after column.
std::vector<double> resized(const IdxImages& images, std::int64_t image, std::int64_t side) {
  const std::uint8_t* pixels = images.pixels.data() + image * images.height * images.width;
  std::vector<std::vector<double>> rows;
  for (std::int64_t y = 0; y < images.height; ++y) {
    const std::uint8_t* row = pixels + y * images.width;
    rows.push_back(resample(std::vector<double>(row, row + images.width), side));
  }
  std::vector<double> all;
  for (std::int64_t c = 0; c < side; ++c) {
    std::vector<double> column;
    for (const auto& row : rows) column.push_back(row[c]);
    column = resample(column, side);
    all.insert(all.end(), column.begin(), column.end());
  }
  return all;
}

IdxImages random_images(std::int64_t count, std::int64_t height, std::int64_t width) {
  std::mt19937 random(7);
  IdxImages images{count, height, width, {}};
  for (std::int64_t i = 0; i < count * height * width; ++i) {
    images.pixels.push_back(random() % 3 == 0 ? 0 : static_cast<std::uint8_t>(random() % 256));
  }
  return images;
}

std::set<std::int64_t> row_of(const Csr& matrix, std::int64_t row) {
  std::set<std::int64_t> cols;
  for (auto k = matrix.view().row_begin(row); k < matrix.view().row_begin(row + 1); ++k) {
    cols.insert(matrix.view().col(k));
  }
  return cols;
}

TEST(ChallengeImages, EqualTheFourierTransformWrittenOut) {
  // Larger, smaller and equal, even and odd.
  for (const auto& [height, width, side] :
       std::vector<std::array<std::int64_t, 3>>{{28, 28, 32},
                                                {28, 28, 64},
                                                {28, 28, 17},
                                                {28, 28, 14},
                                                {7, 12, 19},
                                                {13, 5, 8},
                                                {9, 9, 9},
                                                {1, 1, 3},
                                                {6, 1, 1},
                                                {20, 31, 256}}) {
    SCOPED_TRACE(testing::Message() << height << " × " << width << " → " << side);
    const IdxImages images = random_images(2, height, width);
    const Csr made = challenge_images(images, side * side);
    ASSERT_EQ(made.rows(), 2);
    ASSERT_EQ(made.cols(), side * side);
    std::int64_t on = 0;
    for (std::int64_t image = 0; image < 2; ++image) {
      const auto expected = resized(images, image, side);
      const auto ids = row_of(made, image);
      for (std::int64_t id = 0; id < side * side; ++id) {
        if (std::abs(expected[id] - 184.5) < 1e-3) continue;
        ASSERT_EQ(ids.count(id) > 0, expected[id] > 184.5) << id << ": " << expected[id];
      }
      on += std::ssize(ids);
    }
    EXPECT_EQ(made.nnz(), on) << "an id appears twice";
  }
}

TEST(ChallengeImages, AreInTheSmallestForm) {
  IdxImages images = random_images(3, 4, 4);
  std::fill_n(images.pixels.begin() + 16, 16, std::uint8_t{0});
  const Csr narrow = challenge_images(images, 65536);
  EXPECT_EQ(narrow.view().index_type, DType::u16);
  EXPECT_TRUE(narrow.view().shared_value);
  EXPECT_EQ(narrow.view().value(0), 1.0);
  EXPECT_TRUE(row_of(narrow, 1).empty());
  EXPECT_FALSE(row_of(narrow, 2).empty());
  const Csr wide = challenge_images(images, 257 * 257);
  EXPECT_EQ(wide.view().index_type, DType::u32);
  EXPECT_GT(wide.view().col(wide.nnz() - 1), 65536);
  images.count = 0;
  images.pixels.clear();
  const Csr none = challenge_images(images, 16);
  EXPECT_EQ(none.rows(), 0);
  EXPECT_EQ(none.nnz(), 0);
}

TEST(ChallengeImages, RefuseWhatDoesNotFit) {
  const IdxImages images = random_images(1, 4, 4);
  for (const std::int64_t neurons : {0L, -4L, 1000L, 1L << 40}) {
    const auto message = error_of([&] { static_cast<void>(challenge_images(images, neurons)); });
    expect_contains(message, std::to_string(neurons));
    expect_contains(message, "1024 (32 × 32)");
  }
  IdxImages broken = images;
  broken.pixels.pop_back();
  expect_contains(error_of([&] { static_cast<void>(challenge_images(broken, 16)); }),
                  "15 grey values");
}

TEST(ChallengeImages, ReproduceTheOfficialOnes) {
  const auto mnist = test::real_data("mnist/train-images-idx3-ubyte.gz");
  const test::ScratchDir folder;
  if (!mnist || !test::unpack_official_data(folder.path())) {
    GTEST_SKIP() << "SPDNN_DATA has no mnist/train-images-idx3-ubyte.gz or no sdgc/*.tar.xz";
  }
  const Csr official = read_graph_challenge_images(folder.path(), 1024, {}, {false, {}});
  ASSERT_EQ(official.rows(), 1200);
  const Csr made = challenge_images(read_idx_images(*mnist), 1024);
  std::int64_t different = 0;
  for (std::int64_t image = 0; image < official.rows(); ++image) {
    std::vector<std::int64_t> symmetric;
    const auto a = row_of(official, image);
    const auto b = row_of(made, image);
    std::set_symmetric_difference(a.begin(), a.end(), b.begin(), b.end(),
                                  std::back_inserter(symmetric));
    different += std::ssize(symmetric);
  }
  const double share = static_cast<double>(different) / (1200.0 * 1024.0);
  RecordProperty("different_pixels_ppm", static_cast<int>(share * 1e6));
  EXPECT_LE(share, 0.0005);
  // The official count of all 60,000.
  EXPECT_NEAR(static_cast<double>(made.nnz()), 6374505.0, 0.003 * 6374505.0);
}

std::uint64_t checksum(const std::vector<std::uint8_t>& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), std::uint64_t{14695981039346656037U},
                         [](std::uint64_t sum, std::uint8_t byte) {
                           return (sum ^ byte) * std::uint64_t{1099511628211U};
                         });
}

TEST(Digits, AreEqualForEqualSeeds) {
  const IdxImages digits = draw_digits(1000, 1);
  EXPECT_EQ(digits.count, 1000);
  EXPECT_EQ(digits.pixels.size(), 1000U * 28 * 28);
  EXPECT_EQ(checksum(digits.pixels), 14665153723901184712U) << "the pixels every machine must draw";
  EXPECT_NE(checksum(draw_digits(1000, 2).pixels), checksum(digits.pixels));
  const IdxImages fewer = draw_digits(65, 1);
  EXPECT_TRUE(std::equal(fewer.pixels.begin(), fewer.pixels.end(), digits.pixels.begin()));
}

TEST(Digits, HaveAboutAsMuchInkAsMnist) {
  const IdxImages digits = draw_digits(2000, 3);
  const auto inked = std::count_if(digits.pixels.begin(), digits.pixels.end(),
                                   [](std::uint8_t grey) { return grey != 0; });
  EXPECT_NEAR(static_cast<double>(inked) / static_cast<double>(digits.pixels.size()), 0.19, 0.02);
  // The official images of 1024 pixels have 10.4 % of them on.
  const Csr images = challenge_images(digits, 1024);
  EXPECT_NEAR(static_cast<double>(images.nnz()) / (2000.0 * 1024.0), 0.104, 0.01);
  for (std::int64_t i = 0; i < images.rows(); ++i) EXPECT_GT(row_of(images, i).size(), 20U) << i;
}

TEST(Digits, RefuseImpossibleCounts) {
  for (const std::int64_t count : {0L, -1L, 1L << 50}) {
    expect_contains(error_of([&] { static_cast<void>(draw_digits(count, 1)); }),
                    std::to_string(count));
  }
}

}  // namespace
}  // namespace spdnn
