// Binary caches (`.spdnn`): written one matrix at a time, checked and mapped when read.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn {

/// What a text file looked like when a cache was made of it; a cache is stale where any differs.
struct SourceStamp {
  std::string name;  ///< file name, without its folder
  std::int64_t bytes = 0;
  std::int64_t modified_ns = 0;  ///< since 1970
  friend bool operator==(const SourceStamp&, const SourceStamp&) = default;
};

/// Stamps of `files` as they are now. Throws `SystemError` when one can't be looked at.
[[nodiscard]] std::vector<SourceStamp> stamp_sources(
    const std::vector<std::filesystem::path>& files);

/// Writes a cache one matrix at a time under a temporary name and renames it when finished, so that
/// readers and other writers of the same file never see a part of it. Removes what it wrote when it
/// is destroyed unfinished. Throws `SystemError` when the file can't be written.
class CacheWriter {
 public:
  CacheWriter(const std::filesystem::path& file, std::string origin,
              std::vector<SourceStamp> sources = {});
  ~CacheWriter();
  CacheWriter(const CacheWriter&) = delete;
  CacheWriter& operator=(const CacheWriter&) = delete;

  void add(const CsrView& matrix);
  /// Text files that hold the same matrices, when they were written along with the cache.
  void set_sources(std::vector<SourceStamp> sources);
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// How a cache is read.
struct CacheReadOptions {
  int threads = 1;
  /// Pages of files larger than this are given back once they are checked (bytes).
  std::int64_t resident_limit = std::int64_t{1} << 30;
};

/// A cache file mapped into memory, its header and table checked.
class CacheFile {
 public:
  /// Throws `InputError` with the reason when header, table or sizes can't be trusted.
  explicit CacheFile(const std::filesystem::path& file);
  ~CacheFile();
  CacheFile(const CacheFile&) = delete;
  CacheFile& operator=(const CacheFile&) = delete;

  [[nodiscard]] const std::string& origin() const noexcept;
  [[nodiscard]] const std::vector<SourceStamp>& sources() const noexcept;
  [[nodiscard]] std::int64_t bytes() const noexcept;
  /// Checks the checksums and contents of all matrices and returns them as views into the mapping,
  /// which lives as long as any of them. Throws `InputError` for the first that can't be trusted.
  [[nodiscard]] std::vector<Csr> matrices(const CacheReadOptions& options) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spdnn
