// CIFAR-10's binary batches (Krizhevsky, "Learning multiple layers of features from tiny images",
// 2009): records of a label and 32 × 32 bytes each of red, green and blue, one after the other.
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <system_error>

#include "gz_file.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kClasses = 10;
constexpr std::int64_t kSide = 32;
constexpr std::int64_t kChannels = 3;
constexpr std::int64_t kPixels = kChannels * kSide * kSide;
constexpr std::int64_t kRecord = 1 + kPixels;
/// Records of all batches read together; the whole of CIFAR-10 has 60,000. Bounds what a few bytes
/// of compressed data can ask for.
constexpr std::int64_t kMaxRecords = 1'000'000;
constexpr std::int64_t kRecordsAtOnce = 512;
/// Pictures hardly shrink: memory for more than so many times a compressed file is asked for as
/// records come.
constexpr std::int64_t kLikelyRatio = 2;

/// The batches in `folder` that begin with `stem`, by name; of a file and its compressed form the
/// plain one.
std::vector<fs::path> batches(const fs::path& folder, std::string_view stem) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(stem)) continue;
    if (name.ends_with(".bin") || (name.ends_with(".bin.gz") &&
                                   !fs::exists(entry.path().parent_path() / entry.path().stem()))) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) {
    throw InputError(folder,
                     fmt::format("no file {}*.bin or {}*.bin.gz{}; unpack CIFAR-10's binary "
                                 "version there",
                                 stem, stem, error ? fmt::format(" ({})", error.message()) : ""));
  }
  return files;
}

/// Appends the records of one batch.
void read_batch(GzFile& file, LabelledImages& images) {
  const fs::path& path = file.path();
  std::vector<std::uint8_t> records(static_cast<std::size_t>(kRecordsAtOnce * kRecord));
  const std::int64_t before = images.count;
  for (;;) {
    const std::int64_t bytes = file.read(records.data(), std::ssize(records));
    if (bytes % kRecord != 0 || (bytes == 0 && images.count == before)) {
      throw InputError(
          path, fmt::format("ends {} bytes into record {}, but a record has {}: label, "
                            "red, green, blue; fetch the file again",
                            bytes % kRecord, images.count - before + bytes / kRecord + 1, kRecord));
    }
    if (bytes == 0) return;
    for (auto record = records.begin(); record < records.begin() + bytes; record += kRecord) {
      if (*record >= kClasses) {
        throw InputError(path,
                         fmt::format("label {} in record {}; it must be from 0 to {}; is it a "
                                     "binary batch of CIFAR-10?",
                                     *record, images.count - before + 1, kClasses - 1));
      }
      if (images.count == kMaxRecords) {
        throw InputError(path, fmt::format("more than {} images with the batches before it; give "
                                           "fewer batches",
                                           kMaxRecords));
      }
      images.labels.push_back(*record);
      images.pixels.insert(images.pixels.end(), record + 1, record + kRecord);
      ++images.count;
    }
  }
}

LabelledImages read_batches(const fs::path& folder, std::string_view stem) {
  LabelledImages images;
  images.channels = kChannels;
  images.height = images.width = kSide;
  images.classes = kClasses;
  std::deque<GzFile> files;
  std::int64_t records = 0;
  for (const fs::path& path : batches(folder, stem)) {
    records += files.emplace_back(path).likely_bytes(kLikelyRatio) / kRecord;
  }
  // At once: what a growing vector leaves behind would stay with the process.
  images.pixels.reserve(static_cast<std::size_t>(std::min(records, kMaxRecords) * kPixels));
  images.labels.reserve(static_cast<std::size_t>(std::min(records, kMaxRecords)));
  for (GzFile& file : files) read_batch(file, images);
  return images;
}

}  // namespace

LabelledSets read_cifar10(const fs::path& folder) {
  return {read_batches(folder, "data_batch_"), read_batches(folder, "test_batch")};
}

}  // namespace spdnn
