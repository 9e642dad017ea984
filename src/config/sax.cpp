// Builds a JSON value from parser events, refusing duplicate keys and deep nesting.
#include "sax.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <vector>

#include "document.hpp"

namespace spdnn::config {
namespace {

constexpr std::size_t max_depth = 64;
// Bounds the time a lookup for duplicates takes; no object of a configuration has nearly as many.
constexpr std::size_t max_members = 1000;

/// Walks the text and tells how far the parser has read.
class Reader {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Reader(const char* at, std::size_t* offset) : at_(at), offset_(offset) {}
  reference operator*() const { return *at_; }
  Reader& operator++() {
    ++at_;
    if (offset_ != nullptr) ++*offset_;
    return *this;
  }
  Reader operator++(int) {
    Reader before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(const Reader& a, const Reader& b) { return a.at_ == b.at_; }

 private:
  const char* at_;
  std::size_t* offset_;
};

class Builder final : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view text, const std::size_t& offset, Parsed& out)
      : text_(text), offset_(offset), out_(out) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return refuse("binary data is not JSON"); }

  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    Level& level = levels_.back();
    level.key = name;
    const std::string pointer = join(level.pointer, name);
    if (level.value.contains(name)) {
      return refuse(
          fmt::format("{}: the key is already there, on line {}", pointer, out_.lines[pointer]));
    }
    if (level.value.size() == max_members) {
      return refuse(fmt::format("more than {} keys in one object", max_members));
    }
    newlines_ += count_newlines(counted_, offset_);
    counted_ = offset_;
    out_.lines[pointer] = newlines_ + 1;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    const std::size_t at = position == 0 ? 0 : std::min(position - 1, text_.size());
    return refuse_at(at, explain(error.what(), at));
  }

 private:
  struct Level {
    Json value;
    std::string pointer;
    std::string key;  ///< of the member being read
  };

  bool open(Json value) {
    if (levels_.size() == max_depth) {
      return refuse(fmt::format("nested deeper than {} levels", max_depth));
    }
    levels_.push_back({std::move(value), levels_.empty() ? std::string() : member(), {}});
    return true;
  }

  bool close() {
    Json value = std::move(levels_.back().value);
    levels_.pop_back();
    return add(std::move(value));
  }

  bool add(Json value) {
    if (levels_.empty()) {
      out_.value = std::move(value);
    } else if (levels_.back().value.is_array()) {
      levels_.back().value.push_back(std::move(value));
    } else {
      levels_.back().value[levels_.back().key] = std::move(value);
    }
    return true;
  }

  /// Pointer of the value that is about to be read.
  [[nodiscard]] std::string member() const {
    const Level& level = levels_.back();
    return join(level.pointer,
                level.value.is_array() ? std::to_string(level.value.size()) : level.key);
  }

  [[nodiscard]] std::int64_t count_newlines(std::size_t begin, std::size_t end) const {
    const std::string_view part = text_.substr(begin, end - begin);
    return std::count(part.begin(), part.end(), '\n');
  }

  bool refuse(std::string problem) {
    return refuse_at(offset_ == 0 ? 0 : offset_ - 1, std::move(problem));
  }

  bool refuse_at(std::size_t at, std::string problem) {
    out_.problem = std::move(problem);
    out_.line = 1 + count_newlines(0, at);
    const std::size_t newline = text_.substr(0, at).rfind('\n');
    out_.column =
        static_cast<std::int64_t>(newline == std::string_view::npos ? at + 1 : at - newline);
    return false;
  }

  /// The library's message without its prefix, and what people usually got wrong there.
  [[nodiscard]] std::string explain(std::string_view what, std::size_t at) const {
    const std::size_t column = what.find(", column ");
    const std::size_t start = column == std::string_view::npos ? what.find("] ") : column;
    const std::size_t colon = column == std::string_view::npos ? start : what.find(": ", start);
    std::string message(colon == std::string_view::npos ? what : what.substr(colon + 2));
    const std::string_view rest = text_.substr(std::min(at, text_.size()));
    const std::string_view before = text_.substr(0, std::min(at, text_.size()));
    const std::size_t last = before.find_last_not_of(" \t\r\n");
    const bool in_string = message.find("invalid string") != std::string::npos;
    if (rest.starts_with('#') || rest.starts_with("//") || (before.ends_with('/') && !in_string)) {
      message += "; JSON has no comments";
    } else if ((rest.starts_with('}') || rest.starts_with(']')) && last != std::string_view::npos &&
               before[last] == ',') {
      message += "; remove the comma before it";
    }
    return message;
  }

  std::string_view text_;
  const std::size_t& offset_;
  Parsed& out_;
  std::vector<Level> levels_;
  std::size_t counted_ = 0;  // offset up to which `newlines_` counts
  std::int64_t newlines_ = 0;
};

}  // namespace

Parsed parse(std::string_view text) {
  Parsed out;
  std::size_t offset = 0;
  Builder builder(text, offset, out);
  const Reader begin(text.data(), &offset);
  const Reader end(text.data() + text.size(), nullptr);
  Json::sax_parse(begin, end, &builder);
  return out;
}

}  // namespace spdnn::config
