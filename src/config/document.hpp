// Strict JSON with the place of every key, so that an error can say where it was written.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "keys.hpp"

namespace spdnn::config {

// Moving the library's JSON value throws nothing, though the check can't see it.
/// A configuration as written: its JSON and the line, or `--set` argument, each key came from.
class Document {  // NOLINT(bugprone-exception-escape)
 public:
  /// Reads a file: UTF-8 with or without a byte order mark, no comments, no key twice in an object,
  /// at most 64 levels and 16 MiB. Throws `InputError` with file, line and column.
  [[nodiscard]] static Document read(const std::filesystem::path& file);

  /// Applies `/json/pointer=value`, where the value is JSON or a bare word that becomes a string;
  /// missing objects, and lists where the step is 0, are made on the way. Throws `InputError`
  /// naming the argument.
  void set(const std::string& argument);

  [[nodiscard]] Json& root() { return root_; }
  [[nodiscard]] const Json& root() const { return root_; }

  /// Where the value at `pointer`, or the nearest one around it, was written: "FILE:LINE" or
  /// "--set ARGUMENT".
  [[nodiscard]] std::string place(std::string_view pointer) const;

 private:
  Json root_;
  std::string file_;
  std::map<std::string, std::string, std::less<>> places_;
};

/// One more step of a JSON pointer.
[[nodiscard]] std::string join(std::string_view pointer, std::string_view name);

}  // namespace spdnn::config
