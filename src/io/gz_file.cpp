// zlib's file functions, with errors that help.
#include "gz_file.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <system_error>

namespace spdnn {

GzFile::GzFile(const std::filesystem::path& path) : input_(path) {
  const int descriptor = ::dup(input_.descriptor());  // closed by gzclose
  file_ = descriptor < 0 ? nullptr : gzdopen(descriptor, "rb");
  if (file_ == nullptr) {
    const std::string reason = std::generic_category().message(errno);
    if (descriptor >= 0) ::close(descriptor);
    throw SystemError(fmt::format("{}: can't be opened: {}", path.string(), reason));
  }
  gzbuffer(file_, 1U << 18U);
}

std::int64_t GzFile::likely_bytes(std::int64_t ratio) const {
  // RFC 1952: two magic bytes at the start, and the number of bytes modulo 2³² at the end.
  constexpr std::int64_t kLeast = 18;
  if (stored_bytes() < kLeast) return stored_bytes();
  std::array<char, 2> magic{};
  std::array<char, 4> size{};
  input_.read_at(0, magic);
  input_.read_at(stored_bytes() - std::ssize(size), size);
  if (magic[0] != '\x1f' || magic[1] != '\x8b') return stored_bytes();
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < size.size(); ++i) {
    bytes |= std::int64_t{static_cast<std::uint8_t>(size[i])} << (8 * i);
  }
  return std::min(bytes, ratio * stored_bytes());
}

std::int64_t GzFile::read(std::uint8_t* to, std::int64_t count) {
  std::int64_t done = 0;
  while (done < count) {
    const auto step = static_cast<unsigned>(std::min<std::int64_t>(count - done, 1 << 24));
    const int got = gzread(file_, to + done, step);
    if (got < 0) fail();
    if (got == 0) break;
    done += got;
  }
  // A gzip stream that stops early reads as a short file with this error set.
  int code = Z_OK;
  gzerror(file_, &code);
  if (code != Z_OK && code != Z_STREAM_END) fail();
  return done;
}

void GzFile::fail() const {
  int code = Z_OK;
  const char* reason = gzerror(file_, &code);
  if (code == Z_ERRNO) {
    throw SystemError(fmt::format("{}: can't be read: {}", path().string(),
                                  std::generic_category().message(errno)));
  }
  // zlib names what it reads, which here is a descriptor: "<fd:4>: unexpected end of file".
  std::string_view what = reason;
  if (const auto colon = what.find(": "); colon != what.npos) what.remove_prefix(colon + 2);
  throw InputError(path(), fmt::format("{} gzip data ({}); fetch the file again",
                                       code == Z_BUF_ERROR ? "truncated" : "corrupt", what));
}

}  // namespace spdnn
