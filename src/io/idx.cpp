// MNIST's idx files: big-endian header, then bytes; plain or gzip-compressed, told by content.
#include <fmt/format.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

#include "files.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

constexpr std::uint32_t kImagesMagic = 2051;
constexpr std::uint32_t kLabelsMagic = 2049;
/// Bytes of data an idx file may hold; MNIST's largest has 47 million.
constexpr std::int64_t kMaxBytes = std::int64_t{1} << 34;
/// gzip makes nothing smaller than this many times.
constexpr std::int64_t kMaxRatio = 1032;

/// An idx file opened for reading in order.
class IdxFile {
 public:
  explicit IdxFile(const std::filesystem::path& path) : input_(path) {
    const int descriptor = ::dup(input_.descriptor());  // closed by gzclose
    file_ = descriptor < 0 ? nullptr : gzdopen(descriptor, "rb");
    if (file_ == nullptr) {
      const std::string reason = std::generic_category().message(errno);
      if (descriptor >= 0) ::close(descriptor);
      throw SystemError(fmt::format("{}: can't be opened: {}", path.string(), reason));
    }
    gzbuffer(file_, 1U << 18U);
  }
  ~IdxFile() { gzclose(file_); }
  IdxFile(const IdxFile&) = delete;
  IdxFile& operator=(const IdxFile&) = delete;

  /// Reads `count` bytes; returns how many there were.
  std::int64_t read(std::uint8_t* to, std::int64_t count) {
    std::int64_t done = 0;
    while (done < count) {
      const auto step = static_cast<unsigned>(std::min<std::int64_t>(count - done, 1 << 24));
      const int got = gzread(file_, to + done, step);
      if (got < 0) fail();
      if (got == 0) break;
      done += got;
    }
    // A gzip stream that stops early reads as a short file with this error set.
    int code = Z_OK;
    gzerror(file_, &code);
    if (code != Z_OK && code != Z_STREAM_END) fail();
    return done;
  }

  /// Reads a header of `dimensions` sizes after the magic number and checks that `file` can hold
  /// what it promises. Returns the sizes.
  std::array<std::int64_t, 3> read_header(std::uint32_t magic, int dimensions) {
    std::array<std::uint8_t, 16> bytes{};
    const std::int64_t header = 4 + 4 * dimensions;
    const std::int64_t got = read(bytes.data(), header);
    if (got < header) {
      throw InputError(input_.path(),
                       fmt::format("{} bytes, but the header of an idx file has {}", got, header));
    }
    check_magic(word(bytes.data()), magic);
    std::array<std::int64_t, 3> sizes{1, 1, 1};
    std::int64_t total = 1;
    for (std::size_t i = 0; i < static_cast<std::size_t>(dimensions); ++i) {
      sizes[i] = word(bytes.data() + 4 + 4 * i);
      constexpr std::array<const char*, 3> names{"count", "height", "width"};
      if (sizes[i] == 0)
        throw InputError(input_.path(), fmt::format("{} is 0 in its header", names[i]));
      if (sizes[i] > kMaxBytes / total) {
        throw InputError(input_.path(),
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
    const std::int64_t got = read(bytes.data(), expected);
    if (got < expected) {
      throw InputError(
          input_.path(),
          fmt::format("its header promises {} bytes of data, but {} are there", expected, got));
    }
    std::uint8_t extra = 0;
    if (read(&extra, 1) != 0) {
      throw InputError(
          input_.path(),
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
        input_.path(),
        fmt::format("magic number {} where {} ({}) is expected; {}", found, expected,
                    expected == kImagesMagic ? "images of bytes" : "labels of bytes",
                    swapped ? "are image and label file mixed up?" : "not an idx file"));
  }

  /// Before memory is taken: `expected` bytes, header included, against the file's real size.
  void check_size(std::int64_t expected) const {
    const bool plain = gzdirect(file_) != 0;
    if (plain ? input_.bytes() != expected : input_.bytes() < expected / kMaxRatio) {
      throw InputError(input_.path(),
                       fmt::format("its header promises {} bytes, but the file has {}{}", expected,
                                   input_.bytes(), plain ? "" : " (compressed)"));
    }
  }

  [[noreturn]] void fail() const {
    int code = Z_OK;
    const char* reason = gzerror(file_, &code);
    if (code == Z_ERRNO) {
      throw SystemError(fmt::format("{}: can't be read: {}", input_.path().string(),
                                    std::generic_category().message(errno)));
    }
    throw InputError(input_.path(),
                     fmt::format("{} gzip data ({}); fetch the file again",
                                 code == Z_BUF_ERROR ? "truncated" : "corrupt", reason));
  }

  InputFile input_;
  gzFile file_ = nullptr;
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
