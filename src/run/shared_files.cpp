// Listing, comparing and copying the files of the first process.
#include "shared_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "job.hpp"
#include "pack.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

/// Bytes sent at a time.
constexpr std::int64_t kPiece = std::int64_t{64} << 20U;

struct File {
  std::string name;
  std::int64_t bytes = 0;
  std::int64_t written = 0;  ///< ticks of the file system's clock
};

/// The regular files of a folder by name; none where there is no folder.
std::vector<File> files_of(const fs::path& folder) {
  std::vector<File> files;
  std::error_code gone;  // so is a file that was removed meanwhile
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, gone)) {
    if (!entry.is_regular_file(gone)) continue;
    files.push_back(
        {entry.path().filename().string(), static_cast<std::int64_t>(entry.file_size(gone)),
         static_cast<std::int64_t>(entry.last_write_time(gone).time_since_epoch().count())});
  }
  std::sort(files.begin(), files.end(),
            [](const File& a, const File& b) { return a.name < b.name; });
  return files;
}

std::vector<std::byte> packed(const std::vector<File>& files) {
  Packer packer;
  for (const File& file : files) packer(file.name, file.bytes, file.written);
  return packer.bytes();
}

std::vector<File> unpacked(const std::vector<std::byte>& bytes) {
  std::vector<File> files;
  for (Unpacker unpacker(bytes); !unpacker.exhausted();) {
    File& file = files.emplace_back();
    unpacker(file.name, file.bytes, file.written);
  }
  return files;
}

/// Sends a file from the first process to all; `to` is empty where it is not wanted.
void copy_from_first(Communicator& processes, const fs::path& from, const fs::path& to,
                     std::int64_t bytes) {
  const bool sends = processes.rank() == 0;
  std::ifstream in;
  std::ofstream out;
  if (sends) in.open(from, std::ios::binary);
  if (!to.empty()) out.open(to, std::ios::binary);
  std::vector<std::byte> piece;
  for (std::int64_t at = 0; at < bytes; at += kPiece) {
    piece.resize(sends ? static_cast<std::size_t>(std::min(kPiece, bytes - at)) : 0);
    if (sends && !in.read(reinterpret_cast<char*>(piece.data()), std::ssize(piece))) {
      throw SystemError(fmt::format("{}: can't be read to its end", from.string()));
    }
    const std::vector<std::byte> got = gather_bytes(processes, piece)[0];
    if (!to.empty()) out.write(reinterpret_cast<const char*>(got.data()), std::ssize(got));
  }
  if (!to.empty() && !out.flush()) {
    throw SystemError(fmt::format(
        "{}: no room for a copy of the first process's file; set TMPDIR to a folder with {} bytes",
        to.string(), bytes));
  }
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string name = (fs::temp_directory_path() / "spdnn-gpu-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) {
    throw SystemError(
        fmt::format("{}: the folder can't be made; set TMPDIR to one that may be written", name));
  }
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

SharedFolder::SharedFolder(World& world, const fs::path& folder) : folder_(folder) {
  Communicator& processes = world.processes();
  if (processes.size() == 1) return;
  const std::vector<std::byte> own = packed(files_of(folder));
  const auto all = gather_bytes(processes, own);
  if (std::all_of(all.begin(), all.end(), [&](const auto& other) { return other == all[0]; })) {
    return;
  }
  if (own != all[0]) copies_.emplace();
  for (const File& file : unpacked(all[0])) {
    copy_from_first(processes, folder / file.name, copies_ ? copies_->path() / file.name : "",
                    file.bytes);
  }
}

}  // namespace spdnn
