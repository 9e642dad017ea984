// Text files and the binary cache made of them: which of the two is read, and when the cache is
// made again.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "spdnn/io.hpp"

namespace spdnn {

/// Matrices that lie in text files, and in a cache beside them.
struct CachedText {
  std::vector<std::filesystem::path> texts;
  std::filesystem::path cache;  ///< beside the texts
  std::string missing_remedy;   ///< what to do when neither is there
  /// Parses all texts and gives the matrices away in order.
  std::function<void(const std::function<void(Csr)>& take)> parse;
  /// Why the matrices of a cache can't be those of the texts; nothing when they can.
  std::function<std::optional<std::string>(const std::vector<Csr>&)> mismatch;
};

/// Where the cache goes when the folder of `cache` can't be written: a name of its own in the
/// policy's folder. Empty when there is no such folder.
[[nodiscard]] std::filesystem::path fallback_cache(const std::filesystem::path& cache,
                                                   const CachePolicy& policy);

/// Reads the cache where it was made of the texts as they are now, or where there are no texts;
/// otherwise parses the texts and makes the cache anew. Texts too large for memory are parsed
/// straight into the cache.
[[nodiscard]] std::vector<Csr> read_cached_text(const CachedText& source, const CachePolicy& policy,
                                                ReadReport& report);

}  // namespace spdnn
