// Every way a text file can be wrong, each with its own test: the error names file and line, the
// value found, the limit and the remedy.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>

#include "graph_challenge.hpp"
#include "reading.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

using test::error_of;
using test::expect_contains;

constexpr std::int64_t kNeurons = 16;
const CachePolicy kNoCache = {.use = false, .fallback_dir = {}};

class BadInput : public testing::Test {
 protected:
  /// The error of a two-layer network whose second layer has this text.
  std::string weights_error(const std::string& text) {
    test::write_text(layer_path(dir_.path(), kNeurons, 1), "1\t1\t0.5\n");
    test::write_text(layer(), text);
    return error_of([&] {
      static_cast<void>(read_graph_challenge_weights(dir_.path(), kNeurons, 2, kNoCache));
    });
  }
  std::string images_error(const std::string& text) {
    test::write_text(images(), text);
    return error_of([&] {
      static_cast<void>(read_graph_challenge_images(dir_.path(), kNeurons, std::nullopt, kNoCache));
    });
  }
  [[nodiscard]] std::filesystem::path layer() const { return layer_path(dir_.path(), kNeurons, 2); }
  [[nodiscard]] std::filesystem::path images() const { return images_path(dir_.path(), kNeurons); }
  [[nodiscard]] std::string layer_line(int line) const {
    return fmt::format("{}:{}: ", layer().string(), line);
  }
  test::ScratchDir dir_;
};

TEST_F(BadInput, MissingLayerFile) {
  test::write_text(layer_path(dir_.path(), kNeurons, 1), "1\t1\t0.5\n");
  const std::string error = error_of(
      [&] { static_cast<void>(read_graph_challenge_weights(dir_.path(), kNeurons, 2, kNoCache)); });
  expect_contains(error, layer().string() + ": no such file");
  expect_contains(error, "1 of 2 are there");
}

TEST_F(BadInput, NoFilesAtAll) {
  const std::string error = error_of(
      [&] { static_cast<void>(read_graph_challenge_weights(dir_.path(), kNeurons, 2, kNoCache)); });
  expect_contains(error, layer_path(dir_.path(), kNeurons, 1).string() + ": no such file");
  expect_contains(error, "generate");
}

TEST_F(BadInput, TruncatedLine) {
  expect_contains(weights_error("1\t1\t0.5\n2\t1\n3\t1\t0.5\n"),
                  layer_line(2) + "\"2\\t1\" ends after 2 of the 3 fields");
  expect_contains(weights_error("1\t1\t0.5\n2\n"), "ends after 1 of the 3 fields");
  expect_contains(weights_error("1\t1\t0.5\n2\t3\t"), "ends after 2 of the 3 fields");
}

TEST_F(BadInput, TrailingGarbage) {
  const std::string error = weights_error("1\t1\t0.5\n2\t1\t0.5\tx y\n");
  expect_contains(error, layer_line(2) + "\"x\" follows the 3 fields");
}

TEST_F(BadInput, IndexIsNoNumber) {
  expect_contains(weights_error("1\tone\t0.5\n"),
                  layer_line(1) + "output neuron \"one\" is not a whole number");
  expect_contains(weights_error("1.5\t1\t0.5\n"), "input neuron \"1.5\" is not a whole number");
  expect_contains(weights_error("+1\t1\t0.5\n"), "input neuron \"+1\" is not a whole number");
  expect_contains(weights_error("1\t1x\t0.5\n"), "output neuron \"1x\"");
  expect_contains(weights_error(std::string("1\t1\0\t0.5\n", 9)), "output neuron \"1\\x00\"");
}

TEST_F(BadInput, ValueIsNoNumber) {
  for (const char* const value :
       {"abc", "0.5x", "0,5", "0x1p-4", "--1", "+-1", "+", "-", ".", "e5"}) {
    expect_contains(weights_error(fmt::format("1\t1\t{}\n", value)),
                    fmt::format("{}value \"{}\" is not a number", layer_line(1), value));
  }
}

TEST_F(BadInput, IndexZero) {
  expect_contains(weights_error("1\t1\t0.5\n0\t2\t0.5\n"),
                  layer_line(2) + "input neuron 0 is out of range; it must be from 1 to 16");
  expect_contains(weights_error("1\t-3\t0.5\n"), "output neuron -3 is out of range");
}

TEST_F(BadInput, IndexBeyondTheNetwork) {
  expect_contains(weights_error("17\t1\t0.5\n"),
                  layer_line(1) + "input neuron 17 is out of range; it must be from 1 to 16");
  expect_contains(weights_error("1\t17\t0.5\n"), "output neuron 17 is out of range");
  // Numbers past 32 and 64 bits, and those that would be in range if they wrapped around.
  for (const char* const id :
       {"4294967297", "18446744073709551617", "99999999999999999999999999"}) {
    expect_contains(weights_error(fmt::format("1\t{}\t0.5\n", id)),
                    fmt::format("output neuron {} is out of range", id));
  }
}

TEST_F(BadInput, WeightIsNotFinite) {
  for (const char* const value : {"nan", "NaN", "-nan", "nan(1)", "inf", "-inf", "INF", "Infinity",
                                  "-infinity", "1e39", "-1e400"}) {
    expect_contains(weights_error(fmt::format("1\t1\t0.5\n2\t1\t{}\n", value)),
                    fmt::format("{}value \"{}\" is not finite", layer_line(2), value));
  }
}

TEST_F(BadInput, DuplicateEntry) {
  const std::string error = weights_error("1\t1\t0.5\n2\t1\t0.5\n1\t2\t0.5\n2\t1\t0.25\n");
  expect_contains(error, layer_line(4) + "duplicate entry: input neuron 2, output neuron 1");
  expect_contains(error, "line 2");
  expect_contains(weights_error("3\t1\t0.5\n3\t1\t0.5\n"), layer_line(2) + "duplicate entry");
}

TEST_F(BadInput, FirstErrorInFileOrderWins) {
  // A duplicate in line 3, a bad number in line 4, and the other way round.
  expect_contains(weights_error("2\t1\t1\n1\t1\t1\n2\t1\t1\n3\tx\t1\n"),
                  layer_line(3) + "duplicate");
  expect_contains(weights_error("2\t1\t1\n1\t1\t1\n3\tx\t1\n2\t1\t1\n"),
                  layer_line(3) + "output neuron \"x\"");
  // Two layers are wrong: the first is named.
  test::write_text(layer_path(dir_.path(), kNeurons, 1), "1\t1\n");
  const std::string error = error_of(
      [&] { static_cast<void>(read_graph_challenge_weights(dir_.path(), kNeurons, 2, kNoCache)); });
  expect_contains(error, layer_path(dir_.path(), kNeurons, 1).string() + ":1: ");
}

TEST_F(BadInput, ImageIdOutOfRange) {
  expect_contains(images_error("1\t1\t1\n0\t2\t1\n"), images().string() + ":2: image 0 is out of");
  // More rows than so small a file can mean, and more than 32 bits count.
  expect_contains(images_error("16777217\t1\t1\n"),
                  "image 16777217 is out of range; it must be "
                  "from 1 to 16777216");
  expect_contains(images_error("4294967297\t1\t1\n"), "image 4294967297 is out of range");
}

TEST_F(BadInput, ImageWidthOutOfRange) {
  expect_contains(images_error("1\t1\t1\n1\t17\t1\n"),
                  images().string() + ":2: neuron 17 is out of range; it must be from 1 to 16");
}

TEST_F(BadInput, MoreImagesAskedForThanThere) {
  test::write_text(images(), "1\t1\t1\n3\t2\t1\n");
  const std::string error = error_of(
      [&] { static_cast<void>(read_graph_challenge_images(dir_.path(), kNeurons, 4, kNoCache)); });
  expect_contains(error, "4 images were asked for, but it holds 3");
}

TEST_F(BadInput, EmptyFile) {
  expect_contains(weights_error(""), layer().string() + ": is empty");
  expect_contains(images_error(""), images().string() + ": is empty");
  expect_contains(weights_error("\n \n\r\n"), layer().string() + ": holds blank lines alone");
}

TEST_F(BadInput, BlankLineBetweenEntries) {
  expect_contains(weights_error("1\t1\t0.5\n\n2\t1\t0.5\n"), layer_line(2) + "blank line");
  expect_contains(weights_error("\n1\t1\t0.5\n"), layer_line(1) + "blank line");
}

TEST_F(BadInput, EndlessLine) {
  expect_contains(weights_error("1\t1\t0.5\n1\t2\t" + std::string(5000, '1') + "\n"),
                  layer_line(2) + "the line is longer than 4096 bytes");
  expect_contains(weights_error(std::string(1 << 21, ' ')), "longer than 4096 bytes");
}

TEST_F(BadInput, DirectoryInPlaceOfAFile) {
  test::write_text(layer_path(dir_.path(), kNeurons, 1), "1\t1\t0.5\n");
  std::filesystem::create_directories(layer());
  const std::string error = error_of(
      [&] { static_cast<void>(read_graph_challenge_weights(dir_.path(), kNeurons, 2, kNoCache)); });
  expect_contains(error, layer().string() + ": is a directory");
}

TEST_F(BadInput, PipeInPlaceOfAFileDoesNotHang) {
  ASSERT_EQ(::mkfifo(images().c_str(), 0644), 0);
  const std::string error = error_of([&] {
    static_cast<void>(read_graph_challenge_images(dir_.path(), kNeurons, std::nullopt, kNoCache));
  });
  expect_contains(error, images().string() + ": is a pipe");
}

TEST_F(BadInput, DanglingLink) {
  std::filesystem::create_symlink(dir_ / "nowhere", images());
  const std::string error = error_of([&] {
    static_cast<void>(read_graph_challenge_images(dir_.path(), kNeurons, std::nullopt, {}));
  });
  expect_contains(error, images().string() + ": no such file");
}

TEST_F(BadInput, UnreadableFile) {
  test::write_text(images(), "1\t1\t1\n");
  std::filesystem::permissions(images(), std::filesystem::perms::none);
  const bool run = test::run_unprivileged([&] {
    for (const bool cache : {false, true}) {
      const std::string error = error_of([&] {
        static_cast<void>(read_graph_challenge_images(dir_.path(), kNeurons, std::nullopt,
                                                      {.use = cache, .fallback_dir = {}}));
      });
      expect_contains(error, images().string() + ": may not be read");
      expect_contains(error, "chmod");
    }
  });
  if (!run) GTEST_SKIP() << "this process is root and may not become another user";
}

TEST_F(BadInput, CountsOutOfRange) {
  expect_contains(error_of([&] {
                    static_cast<void>(read_graph_challenge_weights(dir_.path(), 0, 2, kNoCache));
                  }),
                  "0 neurons");
  expect_contains(error_of([&] {
                    static_cast<void>(read_graph_challenge_weights(dir_.path(), 16, -1, kNoCache));
                  }),
                  "-1 layers");
}

}  // namespace
}  // namespace spdnn
