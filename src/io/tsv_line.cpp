// The careful reading of a line: what the fast path does not recognise ends up here.
#include "tsv_line.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace spdnn {
namespace {

constexpr std::string_view kSeparators = " \t";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view without_line_end(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  const auto last = line.find_last_not_of(kSeparators);
  return line.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

/// Why a value is not one, told apart so that the remedy fits.
std::string value_error(std::string_view field) {
  double number = 0.0;
  const auto parsed = std::from_chars(field.data(), field.data() + field.size(), number);
  if (parsed.ptr == field.data() + field.size() && parsed.ec != std::errc::invalid_argument) {
    return fmt::format(
        "value {} is not finite, or out of range, as a 32-bit float; values must lie within "
        "±3.4e38",
        quote(field));
  }
  return fmt::format("value {} is not a number; write it as 0.0625 or 6.25e-02", quote(field));
}

}  // namespace

bool is_blank(std::string_view line) { return without_line_end(line).empty(); }

std::string_view take_field(std::string_view& line) {
  line.remove_prefix(std::min(line.find_first_not_of(kSeparators), line.size()));
  const std::string_view field = line.substr(0, line.find_first_of(kSeparators));
  line.remove_prefix(field.size());
  return field;
}

std::string quote(std::string_view field) {
  constexpr std::size_t kShown = 40;
  std::string text = "\"";
  for (const char c : field.substr(0, kShown)) {
    if (c == '\t') {
      text += "\\t";
    } else if (c >= ' ' && c <= '~') {
      text += c;
    } else {
      text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return text + (field.size() > kShown ? "…\"" : "\"");
}

std::optional<std::int64_t> read_id(std::string_view text, const TsvField& field,
                                    std::string_view remedy, std::optional<std::string>& error) {
  std::int64_t id = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), id);
  if (parsed.ec == std::errc::invalid_argument || parsed.ptr != text.data() + text.size()) {
    error = fmt::format("{} {} is not a whole number; it must be from {} to {}", field.name,
                        quote(text), field.least, field.limit);
  } else if (parsed.ec != std::errc{} || id < field.least || id > field.limit) {
    error = fmt::format("{} {} is out of range; it must be from {} to {}{}{}", field.name,
                        text.substr(0, 40), field.least, field.limit, remedy.empty() ? "" : "; ",
                        remedy);
  } else {
    return id;
  }
  return std::nullopt;
}

std::size_t read_finite_float(std::string_view text, float& value) {
  // std::from_chars takes no plus sign, but "+0.5" is a number all the same.
  const std::size_t sign =
      text.size() > 1 && text[0] == '+' && (is_digit(text[1]) || text[1] == '.') ? 1 : 0;
  const char* begin = text.data() + sign;
  const char* end = text.data() + text.size();
  auto parsed = std::from_chars(begin, end, value);
  if (parsed.ec == std::errc::result_out_of_range) {
    // Too large, which is an error, or too close to 0, which is 0 or a subnormal number.
    double wide = 0.0;
    parsed = std::from_chars(begin, end, wide);
    value = static_cast<float>(wide);
  }
  if (parsed.ec != std::errc{} || !std::isfinite(value)) return 0;
  return static_cast<std::size_t>(parsed.ptr - text.data());
}

TsvLine read_tsv_line(std::string_view line, const TsvFormat& format) {
  TsvLine entry;
  line = without_line_end(line);
  std::string_view rest = line;
  const std::string_view first = take_field(rest);
  const std::string_view second = take_field(rest);
  const std::string_view value = take_field(rest);
  if (value.empty()) {
    entry.error = fmt::format(
        "{} ends after {} of the 3 fields: {}, {}, value; is the file cut "
        "short?",
        quote(line), second.empty() ? 1 : 2, format.first.name, format.second.name);
    return entry;
  }
  const auto first_id = read_id(first, format.first, format.remedy, entry.error);
  if (!first_id) return entry;
  const auto second_id = read_id(second, format.second, format.remedy, entry.error);
  if (!second_id) return entry;
  if (read_finite_float(value, entry.value) != value.size()) {
    entry.error = value_error(value);
  } else if (const std::string_view extra = take_field(rest); !extra.empty()) {
    entry.error = fmt::format(
        "{} follows the 3 fields: {}, {}, value; one entry a line, without "
        "anything behind it",
        quote(extra), format.first.name, format.second.name);
  }
  entry.first = *first_id;
  entry.second = *second_id;
  return entry;
}

}  // namespace spdnn
