// idx files: plain and compressed, whole and damaged in every way a file can be.
#include <gtest/gtest.h>

#include <array>

#include "reading.hpp"
#include "real_data.hpp"
#include "spdnn/io.hpp"
#include "support/idx_files.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::expect_contains;
using test::gzip;
using test::images_file;
using test::word;

class Idx : public ::testing::Test {
 protected:
  [[nodiscard]] fs::path file(const std::string& content) const {
    test::write_text(folder_ / "file.idx", content);
    return folder_ / "file.idx";
  }
  void expect_refused(const std::string& content, const std::string& part) const {
    const fs::path path = file(content);
    const std::string message = error_of([&] { static_cast<void>(read_idx_images(path)); });
    expect_contains(message, path.string());
    expect_contains(message, part);
  }

  test::ScratchDir folder_;
  const std::string pixels_ = std::string("\0\1\2\3\4\5\6\7\x80\x81\xFE\xFF", 12);
  const std::string whole_ = images_file(2, 3, 2, pixels_);
};

TEST_F(Idx, ReadsImagesPlainAndCompressed) {
  for (const std::string& content : {whole_, gzip(whole_)}) {
    const IdxImages images = read_idx_images(file(content));
    EXPECT_EQ(images.count, 2);
    EXPECT_EQ(images.height, 3);
    EXPECT_EQ(images.width, 2);
    EXPECT_EQ(std::string(images.pixels.begin(), images.pixels.end()), pixels_);
  }
}

TEST_F(Idx, ReadsLabels) {
  const std::string content = word(2049) + word(3) + "\7\1\2";
  EXPECT_EQ(read_idx_labels(file(content)), (std::vector<std::uint8_t>{7, 1, 2}));
  EXPECT_EQ(read_idx_labels(file(gzip(content))), (std::vector<std::uint8_t>{7, 1, 2}));
}

TEST_F(Idx, CompressedFilesOfSeveralPartsAreOne) {
  const IdxImages images =
      read_idx_images(file(gzip(whole_.substr(0, 9)) + gzip(whole_.substr(9))));
  EXPECT_EQ(std::string(images.pixels.begin(), images.pixels.end()), pixels_);
}

TEST_F(Idx, RefusesWhatIsNoFile) {
  const fs::path missing = folder_ / "nothing";
  expect_contains(error_of([&] { static_cast<void>(read_idx_images(missing)); }), missing.string());
  expect_contains(error_of([&] { static_cast<void>(read_idx_labels(folder_.path())); }),
                  "directory");
}

TEST_F(Idx, RefusesWrongHeaders) {
  expect_refused("", "0 bytes");
  expect_refused(whole_.substr(0, 15), "15 bytes, but the header of an idx file has 16");
  expect_refused(word(2049) + whole_.substr(4), "magic number 2049 where 2051");
  expect_refused("not an idx file at all", "not an idx file");
  expect_refused(images_file(0, 3, 2, ""), "count is 0");
  expect_refused(images_file(2, 3, 0, ""), "width is 0");
  expect_refused(images_file(~0U, ~0U, ~0U, "x"), "height 4294967295");
  const fs::path images = file(whole_);
  expect_contains(error_of([&] { static_cast<void>(read_idx_labels(images)); }),
                  "magic number 2051 where 2049");
}

TEST_F(Idx, RefusesSizesThatDiffer) {
  expect_refused(whole_.substr(0, 27), "promises 28 bytes, but the file has 27");
  expect_refused(whole_ + "x", "promises 28 bytes, but the file has 29");
  expect_refused(gzip(whole_.substr(0, 27)), "promises 12 bytes of data, but 11 are there");
  expect_refused(gzip(whole_ + "x"), "more than the 12 bytes");
  // A small file must not make the reader take gigabytes.
  expect_refused(gzip(images_file(1U << 30, 3, 2, pixels_)), "promises 6442450960 bytes");
}

TEST_F(Idx, RefusesEveryCutOfAFile) {
  const std::string compressed = gzip(whole_);
  for (const std::string& content : {whole_, compressed}) {
    for (std::size_t bytes = 0; bytes < content.size(); ++bytes) {
      expect_refused(content.substr(0, bytes), "");
    }
  }
  expect_refused(compressed.substr(0, compressed.size() - 4),
                 "truncated gzip data (unexpected end of file)");
}

TEST_F(Idx, RefusesCorruptGzip) {
  std::string checksum = gzip(whole_);
  checksum[checksum.size() - 8] ^= 1;
  expect_refused(checksum, "corrupt gzip data");
  std::string data = gzip(images_file(1, 100, 100, std::string(10000, '\x55')));
  data[data.size() / 2] ^= 0x20;
  expect_refused(data, "");
}

TEST_F(Idx, ReadsMnist) {
  const auto images_path = test::real_data("mnist/train-images-idx3-ubyte.gz");
  const auto labels_path = test::real_data("mnist/t10k-labels-idx1-ubyte.gz");
  if (!images_path || !labels_path) GTEST_SKIP() << "SPDNN_DATA has no mnist/*.gz";
  const IdxImages images = read_idx_images(*images_path);
  EXPECT_EQ(images.count, 60000);
  EXPECT_EQ(images.height, 28);
  EXPECT_EQ(images.width, 28);
  const auto labels = read_idx_labels(*labels_path);
  ASSERT_EQ(labels.size(), 10000U);
  std::array<int, 10> counts{};
  for (const std::uint8_t label : labels) ++counts.at(label);
  EXPECT_EQ(counts, (std::array<int, 10>{980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009}));
}

}  // namespace
}  // namespace spdnn
