// ZIP archives (PKWARE APPNOTE 6.3): members stored or deflated, sizes of 64 bits where needed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files.hpp"

namespace spdnn {

/// An archive whose table of contents is read; members are unpacked when asked for.
class ZipFile {
 public:
  /// Throws `InputError` where the file is no archive or its table can't be trusted.
  explicit ZipFile(const std::filesystem::path& path);

  [[nodiscard]] std::vector<std::string> names() const;
  /// The contents of a member, length and CRC-32 checked. Throws `InputError` where there is none
  /// or it is damaged, encrypted, or packed otherwise than stored or deflated.
  [[nodiscard]] std::vector<std::byte> read(std::string_view name) const;

 private:
  struct Member {
    std::string name;
    std::uint16_t flags = 0, method = 0;
    std::uint32_t crc = 0;
    std::uint64_t packed = 0, unpacked = 0, header_at = 0;
  };
  [[noreturn]] void fail(std::string_view what) const;
  /// All bytes, and `size` bytes from `at` on, which must lie in the file.
  [[nodiscard]] std::span<const std::byte> bytes() const {
    return std::as_bytes(std::span(content_));
  }
  [[nodiscard]] std::span<const std::byte> bytes_at(std::uint64_t at, std::uint64_t size) const;
  [[nodiscard]] std::span<const std::byte> table(std::uint64_t& members) const;
  [[nodiscard]] std::span<const std::byte> packed_bytes(const Member& member) const;

  std::filesystem::path path_;
  std::string content_;
  std::vector<Member> members_;
};

/// Writes an archive member by member, deflated; becomes the file when committed.
class ZipWriter {
 public:
  explicit ZipWriter(const std::filesystem::path& path) : output_(path) {}
  /// Adds a member whose contents are `parts`, one after the other.
  void add(const std::string& name, const std::vector<std::span<const std::byte>>& parts);
  void commit();

 private:
  void write(std::string_view bytes);
  OutputFile output_;
  std::uint64_t position_ = 0;
  std::string table_;
  std::uint64_t members_ = 0;
};

}  // namespace spdnn
