// Opening, reading, writing and renaming files, and what is said when the system refuses.
#include "files.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <random>
#include <system_error>
#include <utility>

#include "spdnn/io.hpp"

namespace spdnn {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

[[noreturn]] void fail_to_open(const std::filesystem::path& path, int error,
                               std::string_view remedy) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      throw InputError(path,
                       remedy.empty() ? "no such file" : fmt::format("no such file; {}", remedy));
    case EACCES:
    case EPERM:
      throw InputError(path,
                       "may not be read; make the file readable and its folders searchable "
                       "for this user (chmod +r, chmod +x)");
    case ELOOP:
    case ENAMETOOLONG:
    case ENXIO: throw InputError(path, fmt::format("can't be opened: {}", reason(error)));
    default:
      throw SystemError(fmt::format("{}: can't be opened: {}", path.string(), reason(error)));
  }
}

std::string_view remedy_of(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return "; free space there or choose another folder";
    case ENOENT: return "; make its folder, or choose another one";
    case EACCES:
    case EPERM:
    case EROFS: return "; choose a folder that this user may write to";
    case EISDIR: return "; choose another name";
    default: return {};
  }
}

/// `name.tmp-PID-NUMBER`: of this process, this call and, where folders are shared, this machine.
std::filesystem::path temporary_name(const std::filesystem::path& path) {
  static std::atomic<unsigned> calls{0};
  std::filesystem::path name = path;
  name +=
      fmt::format(".tmp-{}-{:x}-{:08x}", ::getpid(), calls.fetch_add(1), std::random_device{}());
  return name;
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void Descriptor::close() noexcept {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

InputFile::InputFile(std::filesystem::path path, std::string_view remedy) : path_(std::move(path)) {
  // Without O_NONBLOCK, opening a named pipe would wait for a writer that may never come.
  descriptor_ = Descriptor(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (descriptor_.get() < 0) fail_to_open(path_, errno, remedy);
  struct ::stat status {};
  if (::fstat(descriptor_.get(), &status) != 0) fail_to_open(path_, errno, remedy);
  if (S_ISDIR(status.st_mode)) {
    throw InputError(path_, "is a directory, but a regular file is needed here");
  }
  if (!S_ISREG(status.st_mode)) {
    throw InputError(path_, "is a pipe, socket or device, but a regular file is needed here");
  }
  bytes_ = status.st_size;
}

void InputFile::read_at(std::int64_t offset, std::span<char> to) const {
  while (!to.empty()) {
    const auto got = ::pread(descriptor_.get(), to.data(), to.size(), offset);
    if (got < 0) {
      if (errno == EINTR) continue;
      throw SystemError(fmt::format("{}: can't be read: {}", path_.string(), reason(errno)));
    }
    if (got == 0) {
      throw InputError(path_, fmt::format("became shorter than its {} bytes while it was read; "
                                          "start again when nothing writes to it",
                                          bytes_));
    }
    offset += got;
    to = to.subspan(static_cast<std::size_t>(got));
  }
}

MappedFile::MappedFile(const InputFile& file)
    : path_(file.path()),
      descriptor_(::fcntl(file.descriptor(), F_DUPFD_CLOEXEC, 0)),
      bytes_(static_cast<std::size_t>(file.bytes())) {
  if (descriptor_.get() < 0) {
    throw SystemError(fmt::format("{}: can't be kept open: {}", path_.string(), reason(errno)));
  }
  if (bytes_ == 0) return;
  void* const data = ::mmap(nullptr, bytes_, PROT_READ, MAP_SHARED, file.descriptor(), 0);
  if (data == MAP_FAILED) {
    throw SystemError(
        fmt::format("{}: can't be mapped into memory: {}", file.path().string(), reason(errno)));
  }
  data_ = static_cast<const std::byte*>(data);
  known_.emplace(bytes(), path_);
}

MappedFile::~MappedFile() {
  known_.reset();
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), bytes_);
}

void MappedFile::advise(std::int64_t begin, std::int64_t end, int advice) const {
  static const std::int64_t page = ::sysconf(_SC_PAGESIZE);
  begin = begin / page * page;
  if (end <= begin) return;
  ::madvise(const_cast<std::byte*>(data_) + begin, static_cast<std::size_t>(end - begin), advice);
}

void MappedFile::require_whole() const {
  struct ::stat status {};
  if (::fstat(descriptor_.get(), &status) == 0 &&
      static_cast<std::size_t>(status.st_size) >= bytes_) {
    return;
  }
  throw SystemError(
      fmt::format("{}: became shorter than its {} bytes while it was in use; start again when "
                  "nothing writes to it",
                  path_.string(), bytes_));
}

std::string InputFile::read_all() const {
  std::string content(static_cast<std::size_t>(bytes_), '\0');
  read_at(0, content);
  return content;
}

std::int64_t modified_ns(const struct ::stat& status) {
  return std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

OutputFile::OutputFile(std::filesystem::path path)
    : path_(std::move(path)), temporary_(temporary_name(path_)), unfinished_(temporary_) {
  constexpr int kMode = 0666;  // cut by the umask
  const int fd = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, kMode);
  if (fd < 0) fail("can't be written", errno);
  descriptor_ = Descriptor(fd);
}

OutputFile::~OutputFile() {
  if (descriptor_.get() >= 0) ::unlink(temporary_.c_str());
}

void OutputFile::fail(std::string_view what, int error) const {
  throw SystemError(
      fmt::format("{}: {}: {}{}", path_.string(), what, reason(error), remedy_of(error)));
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto done = ::write(descriptor_.get(), bytes.data(), bytes.size());
    if (done < 0 && errno != EINTR) fail("can't be written", errno);
    if (done > 0) bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
}

void OutputFile::write_at(std::int64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto done = ::pwrite(descriptor_.get(), bytes.data(), bytes.size(), offset);
    if (done < 0 && errno != EINTR) fail("can't be written", errno);
    if (done > 0) {
      offset += done;
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    }
  }
}

void OutputFile::read_at(std::int64_t offset, std::span<std::byte> to) const {
  while (!to.empty()) {
    const auto done = ::pread(descriptor_.get(), to.data(), to.size(), offset);
    if (done == 0) fail("can't be read back", EIO);
    if (done < 0 && errno != EINTR) fail("can't be read back", errno);
    if (done > 0) {
      offset += done;
      to = to.subspan(static_cast<std::size_t>(done));
    }
  }
}

void OutputFile::commit() {
  if (::fsync(descriptor_.get()) != 0) fail("can't be brought to the disk", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("can't be replaced", errno);
  descriptor_.close();
  // The new name is safe once the folder is on the disk; not every file system can say so.
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  const Descriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() >= 0) ::fsync(directory.get());
}

void check_writable(const std::filesystem::path& file) {
  std::error_code none;
  if (std::filesystem::is_directory(file, none)) {
    throw SystemError(fmt::format("{}: can't be written: {}{}", file.string(), reason(EISDIR),
                                  remedy_of(EISDIR)));
  }
  const OutputFile trial(file);
}

void write_file_atomically(const std::filesystem::path& file, std::string_view content) {
  OutputFile output(file);
  output.write(content);
  output.commit();
}

}  // namespace spdnn
