// Reading text files of numbers.
#include "number_lines.hpp"

#include <algorithm>

namespace spdnn {

NumberLines::NumberLines(const std::filesystem::path& file) : file_(file), in_(file) {
  if (!in_) throw InputError(file, "can't be opened");
}

bool NumberLines::next() {
  if (ended_) return false;
  ++number_;
  if (!std::getline(in_, line_)) {
    ended_ = true;
    if (in_.bad()) throw InputError(file_, "can't be read");
    line_.clear();
    return false;
  }
  if (!line_.empty() && line_.back() == '\r') line_.pop_back();
  return true;
}

bool NumberLines::next_data() {
  while (next()) {
    if (!line_.starts_with('%')) return true;
  }
  return false;
}

std::vector<std::string_view> NumberLines::words() const {
  constexpr std::string_view kSpace = " \t";
  std::vector<std::string_view> words;
  const std::string_view line = line_;
  for (std::size_t at = line.find_first_not_of(kSpace); at != std::string_view::npos;) {
    const std::size_t end = std::min(line.find_first_of(kSpace, at), line.size());
    words.push_back(line.substr(at, end - at));
    at = line.find_first_not_of(kSpace, end);
  }
  return words;
}

void NumberLines::fail(const std::string& what) const { throw InputError(file_, number_, what); }

std::vector<std::uint32_t> read_parts(NumberLines& lines, std::int64_t count, std::uint32_t most,
                                      std::string_view of) {
  std::vector<std::uint32_t> owners;
  do {
    for (const std::string_view word : lines.words()) {
      if (std::ssize(owners) == count) {
        lines.fail(fmt::format("more owners than the {} {}", count, of));
      }
      owners.push_back(lines.number<std::uint32_t>(word, "part", 0, most));
    }
  } while (lines.next());
  if (std::ssize(owners) != count) {
    lines.fail(fmt::format("ends after {} owners, but there are {} {}", owners.size(), count, of));
  }
  return owners;
}

}  // namespace spdnn
