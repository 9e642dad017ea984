// A text file in memory, read line by line, fields checked with their place.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "files.hpp"
#include "tsv_line.hpp"

namespace spdnn {

/// Lines of a file, and the fields of the line that was read last.
class TextFile {
 public:
  explicit TextFile(const std::filesystem::path& path)
      : path_(path), text_(InputFile(path).read_all()), rest_(text_) {}
  TextFile(const TextFile&) = delete;
  TextFile& operator=(const TextFile&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::int64_t bytes() const noexcept { return std::ssize(text_); }
  /// Number of the line read last, from 1.
  [[nodiscard]] std::int64_t number() const noexcept { return number_; }
  /// What of the line read last no field was taken of.
  [[nodiscard]] std::string_view line() const noexcept { return line_; }

  /// Goes on to the next line; false at the end.
  bool next() {
    if (rest_.empty()) return false;
    line_ = rest_.substr(0, rest_.find('\n'));
    rest_.remove_prefix(std::min(line_.size() + 1, rest_.size()));
    if (line_.ends_with('\r')) line_.remove_suffix(1);
    ++number_;
    return true;
  }
  /// Goes on to the next line that is not blank; an error at the end, which should hold `what`.
  void need(std::string_view what) {
    while (next()) {
      if (!is_blank(line_)) return;
    }
    fail(std::string("the file ends here, but should go on with ") + std::string(what) +
         "; is it cut short?");
  }
  /// The next field of the line as text, as a whole number from `least` to `most`, as a finite
  /// float.
  [[nodiscard]] std::string_view take_word() { return take_field(line_); }
  [[nodiscard]] std::int64_t take_integer(const char* name, std::int64_t least, std::int64_t most,
                                          std::string_view remedy = {});
  [[nodiscard]] float take_float(const char* name);
  /// Nothing may follow in the line.
  void end_line() {
    if (const std::string_view extra = take_word(); !extra.empty()) {
      fail(quote(extra) + " stands behind the last field of the line; remove it");
    }
  }
  [[noreturn]] void fail(const std::string& message) const {
    throw InputError(path(), number_, message);
  }

 private:
  std::filesystem::path path_;
  std::string text_;
  std::string_view rest_, line_;
  std::int64_t number_ = 0;
};

}  // namespace spdnn
