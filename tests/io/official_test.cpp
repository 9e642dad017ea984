// The official 1024-neuron network, when its archive is there.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "graph_challenge.hpp"
#include "reading.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

class Official : public testing::Test {
 protected:
  void SetUp() override {
    const char* const data = std::getenv("SPDNN_DATA");
    if (data == nullptr) GTEST_SKIP() << "SPDNN_DATA names no folder of real data";
    const auto archive = std::filesystem::path(data) / "sdgc" / "sdgc-neuron1024-l120.tar.xz";
    if (!std::filesystem::exists(archive)) GTEST_SKIP() << archive << " is not there";
    const std::string unpack =
        fmt::format("tar -xJf '{}' -C '{}'", archive.string(), dir_.path().string());
    if (std::system(unpack.c_str()) != 0) GTEST_SKIP() << "could not run " << unpack;
  }
  test::ScratchDir dir_;
};

/// 32 entries of 1/16 in each row and column, in ascending columns.
void expect_official_layer(const CsrView& layer) {
  ASSERT_EQ(layer.rows, 1024);
  ASSERT_EQ(layer.cols, 1024);
  ASSERT_EQ(layer.nnz, 32768);
  EXPECT_EQ(layer.row_offsets, nullptr);
  EXPECT_EQ(layer.row_nnz, 32);
  EXPECT_TRUE(layer.shared_value);
  EXPECT_EQ(layer.value(0), 0.0625);
  EXPECT_EQ(layer.index_type, DType::u16);
  std::vector<int> in_column(1024, 0);
  std::int64_t descents = 0;
  for (std::int64_t k = 0; k < layer.nnz; ++k) {
    in_column[static_cast<std::size_t>(layer.col(k))]++;
    descents += k % 32 != 0 && layer.col(k) <= layer.col(k - 1);
  }
  EXPECT_EQ(in_column, std::vector<int>(1024, 32));
  EXPECT_EQ(descents, 0);
}

TEST_F(Official, NetworkImagesAndTruthAreAsKnown) {
  for (const bool from_cache : {false, true}) {
    ReadReport report;
    const auto layers = read_graph_challenge_weights(dir_.path(), 1024, 120, {}, &report);
    ASSERT_EQ(layers.size(), 120U);
    EXPECT_EQ(report.from_cache, from_cache);
    for (const Csr& layer : layers) expect_official_layer(layer.view());
    if (from_cache) {
      EXPECT_LE(static_cast<double>(report.bytes) / (120 * 32768.0), 2.5);
    }

    const Csr images = read_graph_challenge_images(dir_.path(), 1024, std::nullopt, {}, &report);
    EXPECT_EQ(report.from_cache, from_cache);
    EXPECT_EQ(images.rows(), 1200);
    EXPECT_EQ(images.nnz(), 122713);
    EXPECT_TRUE(images.view().shared_value);
    EXPECT_EQ(images.view().value(0), 1.0);
    if (from_cache) {
      EXPECT_LE(static_cast<double>(report.bytes) / 122713.0, 2.5);
    }
  }
  const auto truth = read_categories(categories_path(dir_.path(), 1024, 120), 1200);
  ASSERT_EQ(truth.size(), 19U);
  EXPECT_EQ(std::vector<std::int64_t>(truth.begin(), truth.begin() + 4),
            (std::vector<std::int64_t>{286, 294, 385, 426}));
}

TEST(GraphChallenge, BiasTable) {
  EXPECT_EQ(graph_challenge_bias(1024), -0.30F);
  EXPECT_EQ(graph_challenge_bias(4096), -0.35F);
  EXPECT_EQ(graph_challenge_bias(16384), -0.40F);
  EXPECT_EQ(graph_challenge_bias(65536), -0.45F);
  EXPECT_FALSE(graph_challenge_bias(1000).has_value());
}

}  // namespace
}  // namespace spdnn
