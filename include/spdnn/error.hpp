// The errors that leave the library, each tied to the exit status that `spdnn-gpu` ends with.
#pragma once

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>

namespace spdnn {

/// Exit status of `spdnn-gpu`.
enum class ExitStatus : int {
  done = 0,       ///< ran, and what could be checked was right
  wrong = 1,      ///< ran, but the result is wrong or a bar under `require` was missed
  bad_input = 2,  ///< the configuration or a data file cannot be used
  failure = 3,    ///< a device, communication or file-system failure
};

/// Base of every exception the library throws on purpose.
class Error : public std::runtime_error {
 public:
  Error(ExitStatus status, const std::string& message)
      : std::runtime_error(message), status_(status) {}
  [[nodiscard]] ExitStatus status() const noexcept { return status_; }

 private:
  ExitStatus status_;
};

/// A configuration or data file that cannot be used. The message names the place, the value found,
/// the limit it breaks and the remedy.
class InputError : public Error {
 public:
  explicit InputError(const std::string& message) : Error(ExitStatus::bad_input, message) {}
  /// `FILE: message`, for what concerns a whole file.
  InputError(const std::filesystem::path& file, std::string_view message);
  /// `FILE:LINE: message`, with `line` counted from 1.
  InputError(const std::filesystem::path& file, std::int64_t line, std::string_view message);
};

/// A device that is missing, out of memory or failing.
class DeviceError : public Error {
 public:
  explicit DeviceError(const std::string& message) : Error(ExitStatus::failure, message) {}
};

/// A collective that could not complete, e.g. because another rank failed.
class CommError : public Error {
 public:
  explicit CommError(const std::string& message) : Error(ExitStatus::failure, message) {}
};

/// A collective that could not complete because another rank or process failed, which tells why.
class OthersFailed : public CommError {
 public:
  using CommError::CommError;
};

/// A file that could not be written or mapped: disk full, no permission.
class SystemError : public Error {
 public:
  explicit SystemError(const std::string& message) : Error(ExitStatus::failure, message) {}
};

}  // namespace spdnn
