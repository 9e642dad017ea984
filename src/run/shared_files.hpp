// Files of the first process that all processes of a job read, on hosts that need not see them.
#pragma once

#include <filesystem>
#include <optional>

#include "spdnn/comm.hpp"

namespace spdnn {

/// A folder of its own, which goes with it. Throws `SystemError` where none can be made.
class TemporaryFolder {
 public:
  TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder();
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// What the first process has in a folder, for all to read: processes that do not see the same
/// files there get copies. All processes of `world` make one.
class SharedFolder {
 public:
  SharedFolder(World& world, const std::filesystem::path& folder);
  /// Where this process finds them.
  [[nodiscard]] const std::filesystem::path& path() const {
    return copies_ ? copies_->path() : folder_;
  }

 private:
  std::filesystem::path folder_;
  std::optional<TemporaryFolder> copies_;
};

}  // namespace spdnn
