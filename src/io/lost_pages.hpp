// Names the file when a page of a mapping can't be read any more.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace spdnn {

/// A mapping that is named, while this lives, should the system refuse to read a page of it after
/// `report_lost_pages` was called. Some hundred mappings can be known at a time; more than that are
/// not, and end the process without a word.
class KnownMapping {
 public:
  KnownMapping(std::span<const std::byte> bytes, const std::filesystem::path& path);
  ~KnownMapping();
  KnownMapping(const KnownMapping&) = delete;
  KnownMapping& operator=(const KnownMapping&) = delete;

 private:
  std::size_t slot_;
};

}  // namespace spdnn
