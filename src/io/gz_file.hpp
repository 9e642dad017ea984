// Files of bytes read in order, plain or gzip-compressed, told by content.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <filesystem>

#include "files.hpp"

namespace spdnn {

/// gzip makes nothing smaller than this many times.
inline constexpr std::int64_t kMaxGzipRatio = 1032;

/// A file opened for reading in order. Corrupt or truncated compressed data are an `InputError`.
class GzFile {
 public:
  explicit GzFile(const std::filesystem::path& path);
  ~GzFile() { gzclose(file_); }
  GzFile(const GzFile&) = delete;
  GzFile& operator=(const GzFile&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return input_.path(); }
  /// Bytes of the file as it is stored.
  [[nodiscard]] std::int64_t stored_bytes() const noexcept { return input_.bytes(); }
  /// Bytes of the file as it is read, as far as can be told without reading it: the end of gzip's
  /// data says so, but may lie. At most `ratio` times the stored ones.
  [[nodiscard]] std::int64_t likely_bytes(std::int64_t ratio) const;
  /// Reads up to `count` bytes; returns how many there were.
  [[nodiscard]] std::int64_t read(std::uint8_t* to, std::int64_t count);
  /// Whether the file is not compressed; known once a byte was read.
  [[nodiscard]] bool plain() { return gzdirect(file_) != 0; }

 private:
  [[noreturn]] void fail() const;

  InputFile input_;
  gzFile file_ = nullptr;
};

}  // namespace spdnn
