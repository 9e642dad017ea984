// Graph Challenge input made of grey images, against discrete Fourier transforms written out, and
// against the official images; the transform itself; drawn digits.
#include <gtest/gtest.h>

#include <complex>
#include <numbers>
#include <numeric>
#include <random>
#include <set>

#include "fft.hpp"
#include "reading.hpp"
#include "real_data.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

using test::error_of;
using test::expect_contains;

using Signal = std::vector<std::complex<double>>;

/// One dimension by the book: transform, cut or zero-pad the spectrum, transform back. The term of
/// half the old length stays on one side when padded; that of half the new one is split when cut.
Signal resample(const Signal& samples, std::int64_t to) {
  const std::int64_t from = std::ssize(samples);
  const std::int64_t kept = std::min(from, to);
  const auto turn = [](std::int64_t k, std::int64_t i, std::int64_t n) {
    const double angle = 2 * std::numbers::pi * static_cast<double>(k * i % n);
    return std::polar(1.0, angle / static_cast<double>(n));
  };
  Signal out(static_cast<std::size_t>(to));
  for (std::int64_t k = -(kept / 2); k <= kept / 2; ++k) {
    double weight = 1.0 / static_cast<double>(from);
    if (2 * std::abs(k) == kept) weight *= from >= to ? 0.5 : k > 0 ? 1.0 : 0.0;
    std::complex<double> coefficient = 0;
    for (std::int64_t i = 0; i < from; ++i) coefficient += samples[i] * turn(-k, i, from);
    for (std::int64_t o = 0; o < to; ++o) out[o] += weight * coefficient * turn(k, o, to);
  }
  return out;
}

/// Magnitudes of all images resized together: [image][column][row].
std::vector<double> resized(const IdxImages& images, std::int64_t side) {
  std::vector<Signal> rows;
  for (std::int64_t y = 0; y < images.height; ++y) {
    Signal row;
    for (std::int64_t q = 0; q < images.count; ++q) {
      for (std::int64_t x = 0; x < images.width; ++x) {
        row.emplace_back(images.pixels[(q * images.height + y) * images.width + x]);
      }
    }
    rows.push_back(resample(row, side * images.count));
  }
  std::vector<double> all;
  for (std::int64_t c = 0; c < side * images.count; ++c) {
    Signal column;
    for (const Signal& row : rows) column.push_back(row[c]);
    for (const auto value : resample(column, side)) all.push_back(std::abs(value));
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
  // Larger, smaller and equal, even and odd, in all combinations that matter for half frequencies.
  for (const auto& [count, height, width, side] :
       std::vector<std::array<std::int64_t, 4>>{{2, 28, 28, 32},
                                                {3, 28, 28, 64},
                                                {1, 28, 28, 32},
                                                {2, 28, 28, 17},
                                                {3, 28, 28, 14},
                                                {4, 7, 12, 19},
                                                {5, 13, 5, 8},
                                                {6, 12, 5, 8},
                                                {6, 5, 9, 4},
                                                {7, 5, 9, 4},
                                                {5, 9, 9, 9},
                                                {4, 8, 8, 8},
                                                {1, 1, 1, 3},
                                                {2, 6, 1, 1},
                                                {70, 6, 4, 7},
                                                {2, 20, 31, 128}}) {
    SCOPED_TRACE(testing::Message()
                 << count << " of " << height << " × " << width << " → " << side);
    const IdxImages images = random_images(count, height, width);
    const Csr made = challenge_images(images, side * side);
    ASSERT_EQ(made.rows(), count);
    ASSERT_EQ(made.cols(), side * side);
    const auto expected = resized(images, side);
    const double limit = *std::max_element(expected.begin(), expected.end()) / 2;
    std::int64_t on = 0;
    for (std::int64_t image = 0; image < count; ++image) {
      const auto ids = row_of(made, image);
      for (std::int64_t id = 0; id < side * side; ++id) {
        const double value = expected[image * side * side + id];
        if (std::abs(value - limit) < 1e-9) continue;
        ASSERT_EQ(ids.count(id) > 0, value > limit) << image << ", " << id << ": " << value;
      }
      on += std::ssize(ids);
    }
    EXPECT_EQ(made.nnz(), on) << "an id appears twice";
  }
}

TEST(ChallengeImages, AreInTheSmallestForm) {
  IdxImages images = draw_digits(3, 1);
  std::fill_n(images.pixels.begin() + 784, 784, std::uint8_t{0});
  const Csr narrow = challenge_images(images, 65536);
  EXPECT_EQ(narrow.view().index_type, DType::u16);
  EXPECT_TRUE(narrow.view().shared_value);
  EXPECT_EQ(narrow.view().value(0), 1.0);
  EXPECT_TRUE(row_of(narrow, 1).empty());
  EXPECT_FALSE(row_of(narrow, 2).empty());
  std::fill(images.pixels.begin(), images.pixels.end(), std::uint8_t{9});
  const Csr wide = challenge_images(images, 257 * 257);
  EXPECT_EQ(wide.view().index_type, DType::u32);
  EXPECT_EQ(wide.view().row_offsets, nullptr);
  EXPECT_EQ(wide.nnz(), 3 * 257 * 257);
  EXPECT_EQ(wide.view().col(wide.nnz() - 1), 257 * 257 - 1);
  std::fill(images.pixels.begin(), images.pixels.end(), std::uint8_t{0});
  EXPECT_EQ(challenge_images(images, 16).nnz(), 0);
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
  expect_contains(error_of([&] {
                    static_cast<void>(challenge_images({0, 4, 4, {}}, 16));
                  }),
                  "no images");
}

TEST(ChallengeImages, AreTheOfficialOnes) {
  const auto mnist = test::real_data("mnist/train-images-idx3-ubyte.gz");
  const test::ScratchDir folder;
  if (!mnist || !test::unpack_official_data(folder.path())) {
    GTEST_SKIP() << "SPDNN_DATA has no mnist/train-images-idx3-ubyte.gz or no sdgc/*.tar.xz";
  }
  const Csr official = read_graph_challenge_images(folder.path(), 1024, {}, {false, {}});
  ASSERT_EQ(official.rows(), 1200);
  const Csr made = challenge_images(read_idx_images(*mnist), 1024);
  for (std::int64_t image = 0; image < official.rows(); ++image) {
    ASSERT_EQ(row_of(made, image), row_of(official, image)) << "image " << image;
  }
  EXPECT_EQ(made.rows(), 60000);
  EXPECT_EQ(made.nnz(), 6374505) << "the official count of all images";
}

TEST(Fft, EqualsItsDefinition) {
  std::mt19937 random(3);
  for (const std::int64_t n : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 35, 60, 97, 121, 210, 1000}) {
    std::vector<Complex> data, scratch;
    for (std::int64_t i = 0; i < n; ++i) {
      data.push_back({static_cast<double>(random() % 256), static_cast<double>(random() % 256)});
    }
    const std::vector<Complex> samples = data;
    Fft(n).forward(data, scratch);
    ASSERT_EQ(std::ssize(data), n);
    for (std::int64_t k = 0; k < n; ++k) {
      Complex sum;
      for (std::int64_t i = 0; i < n; ++i) sum = sum + samples[i] * unit_root(-k * i, n);
      ASSERT_NEAR(data[k].re, sum.re, 1e-8) << k << " of " << n;
      ASSERT_NEAR(data[k].im, sum.im, 1e-8) << k << " of " << n;
    }
  }
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
  EXPECT_EQ(checksum(digits.pixels), 13386392671874966371U) << "the pixels every machine must draw";
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
