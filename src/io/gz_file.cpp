// zlib's file functions, with errors that help.
#include "gz_file.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
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
  throw InputError(path(), fmt::format("{} gzip data ({}); fetch the file again",
                                       code == Z_BUF_ERROR ? "truncated" : "corrupt", reason));
}

}  // namespace spdnn
