// Labelled sets: MNIST, CIFAR-10 and text, whole and damaged.
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

class Labelled : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& content) const {
    test::write_text(folder_ / name, content);
  }
  void write_mnist(const std::string& labels) const {
    write("train-images-idx3-ubyte",
          test::images_file(2, 1, 3, std::string("\0\x33\xFF\1\2\3", 6)));
    write("train-labels-idx1-ubyte.gz", gzip(test::labels_file(labels)));
    write("t10k-images-idx3-ubyte.gz", gzip(test::images_file(1, 1, 3, "abc")));
    write("t10k-labels-idx1-ubyte", test::labels_file(std::string("\6", 1)));
  }
  [[nodiscard]] static std::string record(int label, char fill) {
    return std::string(1, static_cast<char>(label)) + std::string(3072, fill);
  }
  [[nodiscard]] std::string cifar_refusal() const {
    return error_of([&] { static_cast<void>(read_cifar10(folder_.path())); });
  }
  [[nodiscard]] LabelledImages text(std::optional<std::int64_t> classes = std::nullopt) const {
    return read_labelled_tsv(folder_ / "x.tsv", folder_ / "y.txt", 4, classes);
  }
  [[nodiscard]] std::string text_refusal(const std::string& samples, const std::string& labels,
                                         std::optional<std::int64_t> classes = std::nullopt) const {
    write("x.tsv", samples);
    write("y.txt", labels);
    return error_of([&] { static_cast<void>(text(classes)); });
  }

  test::ScratchDir folder_;
};

TEST_F(Labelled, ReadsMnistsFilesPlainAndCompressed) {
  write_mnist(std::string("\4\0", 2));
  const LabelledSets sets = read_mnist(folder_.path());
  EXPECT_EQ(sets.train.count, 2);
  EXPECT_EQ(sets.train.features(), 3);
  EXPECT_EQ(sets.train.labels, (std::vector<std::int32_t>{4, 0}));
  EXPECT_EQ(sets.train.classes, 7);
  EXPECT_EQ(sets.test.classes, 7);
  std::array<float, 6> columns{};
  sets.train.copy_image(0, columns.data() + 1, 2);
  EXPECT_EQ(columns, (std::array<float, 6>{0, 0, 0, 0.2F, 0, 1}));
}

TEST_F(Labelled, RefusesLabelsOfAnotherSet) {
  write_mnist(std::string("\4\0\1", 3));
  expect_contains(error_of([&] { static_cast<void>(read_mnist(folder_.path())); }),
                  "3 labels for the 2 images");
  write_mnist(std::string("\4\0", 2));
  write("t10k-images-idx3-ubyte.gz", gzip(test::images_file(1, 3, 1, "abc")));
  expect_contains(error_of([&] { static_cast<void>(read_mnist(folder_.path())); }),
                  "training images are 1 × 3, test images 3 × 1");
  fs::remove(folder_ / "train-images-idx3-ubyte");
  expect_contains(error_of([&] { static_cast<void>(read_mnist(folder_.path())); }),
                  "train-images-idx3-ubyte: no such file");
}

TEST_F(Labelled, ReadsCifarBatchesInOrder) {
  write("data_batch_2.bin", record(9, 'c'));
  write("data_batch_1.bin", record(1, 'a') + record(2, 'b'));
  write("data_batch_1.bin.gz", "not read: the plain file is there");
  write("test_batch.first1.bin.gz", gzip(record(0, '\xFF')));
  write("readme.html", "");
  const LabelledSets sets = read_cifar10(folder_.path());
  EXPECT_EQ(sets.train.count, 3);
  EXPECT_EQ(sets.train.labels, (std::vector<std::int32_t>{1, 2, 9}));
  EXPECT_EQ(sets.train.pixels[0], 'a');
  EXPECT_EQ(sets.train.pixels[3072 * 2 + 3071], 'c');
  EXPECT_EQ(sets.test.count, 1);
  EXPECT_EQ(sets.test.features(), 3072);
  EXPECT_EQ(sets.test.classes, 10);
}

TEST_F(Labelled, RefusesDamagedCifarBatches) {
  expect_contains(cifar_refusal(), "no file data_batch_*.bin");
  write("test_batch.bin", record(0, 'x'));
  const std::string two = record(1, 'a') + record(2, 'b');
  write("data_batch_1.bin", two.substr(0, 5000));
  expect_contains(cifar_refusal(), "ends 1927 bytes into record 2, but a record has 3073");
  write("data_batch_1.bin", "");
  expect_contains(cifar_refusal(), "ends 0 bytes into record 1");
  write("data_batch_1.bin", two + record(10, 'c'));
  expect_contains(cifar_refusal(), "label 10 in record 3; it must be from 0 to 9");
  fs::remove(folder_ / "data_batch_1.bin");
  const std::string compressed = gzip(two);
  write("data_batch_1.bin.gz", compressed.substr(0, compressed.size() / 2));
  expect_contains(cifar_refusal(), "truncated gzip data");
}

TEST_F(Labelled, ReadsSparseSamples) {
  write("x.tsv", "1 2 0.5\n3 4 -1\n1 1 2\n");
  write("y.txt", "0\n2\r\n1\n0\n");
  const LabelledImages images = text();
  EXPECT_EQ(images.count, 4);
  EXPECT_EQ(images.classes, 3);
  EXPECT_EQ(images.labels, (std::vector<std::int32_t>{0, 2, 1, 0}));
  EXPECT_EQ(images.sparse.rows(), 4);
  std::array<float, 4> values{9, 9, 9, 9};
  images.copy_image(0, values.data(), 1);
  EXPECT_EQ(values, (std::array<float, 4>{2, 0.5F, 0, 0}));
  images.copy_image(3, values.data(), 1);
  EXPECT_EQ(values, (std::array<float, 4>{}));
  EXPECT_EQ(text(10).classes, 10);
}

TEST_F(Labelled, RefusesBadSamplesAndLabels) {
  expect_contains(text_refusal("1 5 1\n", "0\n"), "feature 5 is out of range");
  expect_contains(text_refusal("2 1 1\n", "0\n"), "image 2 is out of range");
  expect_contains(text_refusal("1 1 nan\n", "0\n"), "nan");
  expect_contains(text_refusal("1 1 1\n", "-1\n"), "y.txt:1: label -1 is out of range");
  expect_contains(text_refusal("1 1 1\n", "0\nx\n"), "y.txt:2: label \"x\" is not a whole number");
  expect_contains(text_refusal("1 1 1\n", "0 1\n"), "\"1\" follows the label");
  expect_contains(text_refusal("1 1 1\n", "0\n\n1\n"), "y.txt:2: blank line");
  expect_contains(text_refusal("1 1 1\n", "3\n", 3), "must be from 0 to 2");
  expect_contains(text_refusal("1 1 1\n", ""), "holds no label");
}

TEST_F(Labelled, ReadsTheRealSets) {
  const auto cifar = test::real_data("cifar10");
  const auto mnist = test::real_data("mnist");
  if (!cifar || !mnist) GTEST_SKIP() << "SPDNN_DATA has no cifar10 and mnist";
  const LabelledSets colours = read_cifar10(*cifar);
  EXPECT_EQ(colours.train.count, 5000);
  std::array<int, 10> counts{};
  for (const std::int32_t label : colours.test.labels) ++counts.at(static_cast<std::size_t>(label));
  EXPECT_EQ(counts, (std::array<int, 10>{103, 89, 100, 103, 90, 86, 112, 102, 106, 109}));
  const LabelledSets digits = read_mnist(*mnist);
  EXPECT_EQ(digits.train.count, 60000);
  EXPECT_EQ(digits.test.count, 10000);
  EXPECT_EQ(digits.train.classes, 10);
  EXPECT_EQ(digits.test.features(), 784);
}

}  // namespace
}  // namespace spdnn
