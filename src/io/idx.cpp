// MNIST's idx files: big-endian header, then bytes; plain or gzip-compressed, told by content.
#include <fmt/format.h>

#include <array>

#include "gz_file.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

constexpr std::uint32_t kImagesMagic = 2051;
constexpr std::uint32_t kLabelsMagic = 2049;
/// Bytes of data an idx file may hold; MNIST's largest has 47 million.
constexpr std::int64_t kMaxBytes = std::int64_t{1} << 34;
/// An idx file opened for reading in order.
class IdxFile {
 public:
  explicit IdxFile(const std::filesystem::path& path) : file_(path) {}

  /// Reads a header of `dimensions` sizes after the magic number and checks that `file` can hold
  /// what it promises. Returns the sizes.
  std::array<std::int64_t, 3> read_header(std::uint32_t magic, int dimensions) {
    std::array<std::uint8_t, 16> bytes{};
    const std::int64_t header = 4 + 4 * dimensions;
    const std::int64_t got = file_.read(bytes.data(), header);
    if (got < header) {
      throw InputError(file_.path(),
                       fmt::format("{} bytes, but the header of an idx file has {}", got, header));
    }
    check_magic(word(bytes.data()), magic);
    std::array<std::int64_t, 3> sizes{1, 1, 1};
    std::int64_t total = 1;
    for (std::size_t i = 0; i < static_cast<std::size_t>(dimensions); ++i) {
      sizes[i] = word(bytes.data() + 4 + 4 * i);
      constexpr std::array<const char*, 3> names{"count", "height", "width"};
      if (sizes[i] == 0)
        throw InputError(file_.path(), fmt::format("{} is 0 in its header", names[i]));
      if (sizes[i] > kMaxBytes / total) {
        throw InputError(file_.path(),
                         fmt::format("{} {} in its header makes more than the {} bytes an "
                                     "idx file may have here",
                                     names[i], sizes[i], kMaxBytes));
      }
      total *= sizes[i];
    }
    check_size(header + total);
    return sizes;
  }

  /// Reads the rest, which must be `bytes.size()` long exactly.
  void read_rest(std::vector<std::uint8_t>& bytes) {
    const std::int64_t expected = std::ssize(bytes);
    const std::int64_t got = file_.read(bytes.data(), expected);
    if (got < expected) {
      throw InputError(
          file_.path(),
          fmt::format("its header promises {} bytes of data, but {} are there", expected, got));
    }
    std::uint8_t extra = 0;
    if (file_.read(&extra, 1) != 0) {
      throw InputError(
          file_.path(),
          fmt::format("has more than the {} bytes of data its header promises", expected));
    }
  }

 private:
  static std::uint32_t word(const std::uint8_t* bytes) {
    return std::uint32_t{bytes[0]} << 24U | std::uint32_t{bytes[1]} << 16U |
           std::uint32_t{bytes[2]} << 8U | bytes[3];
  }

  void check_magic(std::uint32_t found, std::uint32_t expected) const {
    if (found == expected) return;
    const bool swapped = found == kImagesMagic || found == kLabelsMagic;
    throw InputError(
        file_.path(),
        fmt::format("magic number {} where {} ({}) is expected; {}", found, expected,
                    expected == kImagesMagic ? "images of bytes" : "labels of bytes",
                    swapped ? "are image and label file mixed up?" : "not an idx file"));
  }

  /// Before memory is taken: `expected` bytes, header included, against the file's real size.
  void check_size(std::int64_t expected) {
    const bool plain = file_.plain();
    if (plain ? file_.stored_bytes() != expected
              : file_.stored_bytes() < expected / kMaxGzipRatio) {
      throw InputError(file_.path(),
                       fmt::format("its header promises {} bytes, but the file has {}{}", expected,
                                   file_.stored_bytes(), plain ? "" : " (compressed)"));
    }
  }

  GzFile file_;
};

}  // namespace

IdxImages read_idx_images(const std::filesystem::path& file) {
  IdxFile idx(file);
  const auto [count, height, width] = idx.read_header(kImagesMagic, 3);
  IdxImages images{count, height, width, {}};
  images.pixels.resize(static_cast<std::size_t>(count * height * width));
  idx.read_rest(images.pixels);
  return images;
}

std::vector<std::uint8_t> read_idx_labels(const std::filesystem::path& file) {
  IdxFile idx(file);
  const auto count = idx.read_header(kLabelsMagic, 1)[0];
  std::vector<std::uint8_t> labels(static_cast<std::size_t>(count));
  idx.read_rest(labels);
  return labels;
}

}  // namespace spdnn
