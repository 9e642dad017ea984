// Text files of numbers, line by line, with errors that say where.
#pragma once

#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "spdnn/error.hpp"

namespace spdnn {

/// Lines of a file, one after another, with their numbers.
class NumberLines {
 public:
  explicit NumberLines(const std::filesystem::path& file);
  bool next();
  /// The next line that is no comment (%).
  bool next_data();
  [[nodiscard]] const std::string& line() const { return line_; }
  /// What white space divides the line into.
  [[nodiscard]] std::vector<std::string_view> words() const;
  [[noreturn]] void fail(const std::string& what) const;

  /// All of `text`, which stands on this line, as a number from `least` to `most`.
  template <class T>
  T number(std::string_view text, std::string_view what, T least, T most, int base = 10) const {
    T value{};
    const char* end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data(), end, value, base);
    if (error != std::errc{} || at != end || value < least || value > most) {
      fail(fmt::format("'{}' is no {} from {} to {}", text.substr(0, 40), what, least, most));
    }
    return value;
  }

 private:
  std::filesystem::path file_;
  std::ifstream in_;
  std::string line_;
  std::int64_t number_ = 0;
  bool ended_ = false;
};

/// From the line that was read last to the end, `count` parts from 0 to `most`: one a line, as
/// hMETIS and Mt-KaHyPar write them, or several, as PaToH does. `of` says in errors what they are
/// the parts of.
[[nodiscard]] std::vector<std::uint32_t> read_parts(NumberLines& lines, std::int64_t count,
                                                    std::uint32_t most, std::string_view of);

}  // namespace spdnn
