// The order of attempts: cache beside the texts, cache in the fallback folder, the texts.
#include "cached_text.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <cstdlib>
#include <system_error>
#include <utility>

#include "cache.hpp"
#include "graph_challenge.hpp"
#include "parallel.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

/// Sentences for a report.
struct Notes {
  std::string text;
  void add(const std::string& note) {
    if (!text.empty() && !note.empty()) text += "; ";
    text += note;
  }
};

/// Whether anything has that name; a folder that may not be searched counts as one that holds it,
/// so that opening the file tells what is wrong.
bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::symlink_status(path, error).type() != fs::file_type::not_found;
}

/// How the texts differ from those a cache was made of.
std::string difference(const std::vector<SourceStamp>& then, const std::vector<SourceStamp>& now) {
  if (then.empty()) return "it was not made of the text files that are there";
  if (then.size() != now.size()) return "it was made of another number of text files";
  for (std::size_t i = 0; i < now.size(); ++i) {
    if (then[i] != now[i]) return fmt::format("{} has changed since", now[i].name);
  }
  return "";
}

std::vector<Csr> take_matrices(const CacheFile& cache, const CachedText& source,
                               const fs::path& file) {
  auto matrices = cache.matrices({.threads = reader_threads()});
  if (const auto why = source.mismatch(matrices)) throw InputError(file, *why);
  return matrices;
}

void report_cache(ReadReport& report, const CacheFile& cache, const fs::path& file) {
  report.bytes = cache.bytes();
  report.from_cache = true;
  report.cache_file = file;
  report.origin = cache.origin();
}

/// The cache alone is there: a generated network, or texts that were deleted to save space.
std::vector<Csr> read_without_texts(const CachedText& source, ReadReport& report) {
  if (!is_there(source.cache)) {
    throw InputError(source.texts.front(), fmt::format("no such file; {}", source.missing_remedy));
  }
  try {
    const CacheFile cache(source.cache);
    auto matrices = take_matrices(cache, source, source.cache);
    report_cache(report, cache, source.cache);
    return matrices;
  } catch (const InputError& error) {
    throw InputError(
        fmt::format("{}; there are no text files to make it of: generate it again, or "
                    "put {} there",
                    error.what(), source.texts.front().filename().string()));
  }
}

/// The matrices of `file` when it was made of texts with these stamps. Otherwise notes why not, and
/// keeps what the cache says of texts that are still the same.
std::optional<std::vector<Csr>> try_cache(const fs::path& file, const CachedText& source,
                                          const std::vector<SourceStamp>& stamps,
                                          ReadReport& report, Notes& notes) {
  if (!is_there(file)) return std::nullopt;
  try {
    const CacheFile cache(file);
    if (const std::string why = difference(cache.sources(), stamps); !why.empty()) {
      notes.add(fmt::format("{}: rebuilt, {}", file.string(), why));
      return std::nullopt;
    }
    report.origin = cache.origin();
    auto matrices = take_matrices(cache, source, file);
    report_cache(report, cache, file);
    return matrices;
  } catch (const Error& error) {
    notes.add(fmt::format("rebuilt: {}", error.what()));
  }
  return std::nullopt;
}

/// Parses the texts into a new cache and maps that. Nothing, with a note, where it can't be
/// written.
std::optional<std::vector<Csr>> build_cache(const fs::path& file, const CachedText& source,
                                            const std::vector<SourceStamp>& stamps,
                                            ReadReport& report, Notes& notes) {
  try {
    std::error_code ignored;
    fs::create_directories(file.parent_path(), ignored);
    CacheWriter writer(file, report.origin, stamps);
    source.parse([&](const Csr& matrix) { writer.add(matrix.view()); });
    writer.finish();
  } catch (const SystemError& error) {
    notes.add(fmt::format("no cache kept: {}", error.what()));
    return std::nullopt;
  }
  try {
    const CacheFile cache(file);
    auto matrices = take_matrices(cache, source, file);
    report.cache_file = file;
    return matrices;
  } catch (const Error& error) {
    notes.add(fmt::format("not used after it was written: {}", error.what()));
  }
  return std::nullopt;
}

std::vector<Csr> parse_into_memory(const CachedText& source) {
  std::vector<Csr> matrices;
  source.parse([&](Csr matrix) { matrices.push_back(std::move(matrix)); });
  return matrices;
}

/// Whether the texts are there; when only some are, the first missing one is an error.
bool texts_are_there(const CachedText& source) {
  std::ptrdiff_t there = 0;
  const fs::path* missing = nullptr;
  for (const fs::path& text : source.texts) {
    if (is_there(text)) {
      ++there;
    } else if (missing == nullptr) {
      missing = &text;
    }
  }
  if (missing != nullptr && there > 0) {
    throw InputError(*missing, fmt::format("no such file, though {} of {} are there; {}", there,
                                           source.texts.size(), source.missing_remedy));
  }
  return missing == nullptr;
}

/// Reads a cache made of the texts, or makes one; nothing where none can be written.
std::optional<std::vector<Csr>> read_or_build_cache(const CachedText& source,
                                                    const CachePolicy& policy,
                                                    const std::vector<SourceStamp>& stamps,
                                                    ReadReport& report) {
  std::vector<fs::path> places = {source.cache};
  if (auto fallback = fallback_cache(source.cache, policy); !fallback.empty()) {
    places.push_back(std::move(fallback));
  }
  Notes stale, unwritable;
  for (const fs::path& place : places) {
    if (auto matrices = try_cache(place, source, stamps, report, stale)) return matrices;
  }
  report.cache_note = stale.text;
  for (const fs::path& place : places) {
    if (auto matrices = build_cache(place, source, stamps, report, unwritable)) return matrices;
  }
  stale.add(unwritable.text);
  report.cache_note = stale.text;
  return std::nullopt;
}

}  // namespace

fs::path fallback_cache(const fs::path& cache, const CachePolicy& policy) {
  fs::path folder = policy.fallback_dir;
  if (folder.empty()) {
    const char* const xdg = std::getenv("XDG_CACHE_HOME");
    const char* const home = std::getenv("HOME");
    if (xdg != nullptr && fs::path(xdg).is_absolute()) {
      folder = fs::path(xdg) / "spdnn-gpu";
    } else if (home != nullptr && *home != '\0') {
      folder = fs::path(home) / ".cache" / "spdnn-gpu";
    } else {
      return {};
    }
  }
  std::error_code error;
  fs::path place = fs::weakly_canonical(cache.parent_path(), error);
  if (error) place = fs::absolute(cache.parent_path());
  const std::string key = (place / cache.filename()).string();
  return folder / fmt::format("{}-{:016x}.spdnn", cache.stem().string(),
                              XXH3_64bits(key.data(), key.size()));
}

std::vector<Csr> read_cached_text(const CachedText& source, const CachePolicy& policy,
                                  ReadReport& report) {
  report = {};
  report.origin = kOfficialOrigin;
  if (!texts_are_there(source)) return read_without_texts(source, report);
  std::vector<SourceStamp> stamps;
  try {
    stamps = stamp_sources(source.texts);
  } catch (const SystemError&) {
    // A dangling link, or a folder that may not be searched: parsing says which, and what to do.
    return parse_into_memory(source);
  }
  for (const SourceStamp& stamp : stamps) report.bytes += stamp.bytes;
  if (policy.use) {
    if (auto matrices = read_or_build_cache(source, policy, stamps, report)) {
      return *std::move(matrices);
    }
  }
  return parse_into_memory(source);
}

}  // namespace spdnn
