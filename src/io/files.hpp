// Files as the readers and writers use them: opened with errors that help, written as a whole.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "lost_pages.hpp"
#include "spdnn/error.hpp"
#include "unfinished_files.hpp"

namespace spdnn {

/// A file descriptor, closed with its owner.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor() { close(); }
  [[nodiscard]] int get() const noexcept { return fd_; }
  void close() noexcept;

 private:
  int fd_ = -1;
};

/// A regular file opened for reading.
class InputFile {
 public:
  /// Throws `InputError` where there is no such file, it is not a regular one, or it may not be
  /// read. `remedy` completes the message for a file that is not there.
  explicit InputFile(std::filesystem::path path, std::string_view remedy = {});

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::int64_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_.get(); }
  /// Fills `to` from `offset` on. Throws `InputError` when the file ends before, `SystemError` when
  /// the system can't read it. Thread-safe.
  void read_at(std::int64_t offset, std::span<char> to) const;
  /// The whole file.
  [[nodiscard]] std::string read_all() const;

 private:
  std::filesystem::path path_;
  Descriptor descriptor_;
  std::int64_t bytes_ = 0;
};

/// A whole file mapped for reading.
class MappedFile {
 public:
  /// Throws `SystemError` where it can't be mapped.
  explicit MappedFile(const InputFile& file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, bytes_}; }
  /// Passes `advice` on the pages that hold `[begin, end)` to madvise. The file keeps the contents,
  /// so pages that are dropped come back as they were, whoever reads them meanwhile.
  void advise(std::int64_t begin, std::int64_t end, int advice) const;
  /// Throws `SystemError` where the file has become shorter: reading what was mapped beyond its end
  /// would end the process.
  void require_whole() const;

 private:
  std::filesystem::path path_;
  Descriptor descriptor_;
  const std::byte* data_ = nullptr;
  std::size_t bytes_;
  std::optional<KnownMapping> known_;
};

/// Modification time in nanoseconds since 1970.
[[nodiscard]] std::int64_t modified_ns(const struct ::stat& status);

/// A file written under a name of its own beside the final one and renamed when it is complete;
/// removed when destroyed before that, or by `remove_unfinished_files`. Every failure is a
/// `SystemError` that names the final file.
class OutputFile {
 public:
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  /// Appends; not buffered.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  /// Writes from an offset on, over what is there or beyond its end.
  void write_at(std::int64_t offset, std::span<const std::byte> bytes);
  /// Fills `to` with bytes that were written.
  void read_at(std::int64_t offset, std::span<std::byte> to) const;
  /// Brings the bytes to the disk, then gives the file its name.
  void commit();

 private:
  [[noreturn]] void fail(std::string_view what, int error) const;
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  UnfinishedFile unfinished_;
  Descriptor descriptor_;
};

}  // namespace spdnn
