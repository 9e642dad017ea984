// Takes away what was being written when a signal ends the process.
#pragma once

#include <cstddef>
#include <filesystem>

namespace spdnn {

/// A file that `remove_unfinished_files` removes while this lives. Some dozen can be known at a
/// time, with paths of a usual length; others are left where they are.
class UnfinishedFile {
 public:
  explicit UnfinishedFile(const std::filesystem::path& path);
  ~UnfinishedFile();
  UnfinishedFile(const UnfinishedFile&) = delete;
  UnfinishedFile& operator=(const UnfinishedFile&) = delete;

 private:
  std::size_t slot_;
};

}  // namespace spdnn
