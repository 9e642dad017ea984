// The hot loop of reading text. Lines as programs write them (digits, one separator, digits, one
// separator, the value of the line before, newline) are read eight bytes at a time without a branch
// on each character; a new value takes one std::from_chars; anything else goes to the careful
// reader.
#include "tsv_chunk.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <utility>

#include "tsv_line.hpp"

namespace spdnn {
namespace {

static_assert(std::endian::native == std::endian::little, "eight digits are read as one integer");

/// Readable bytes behind the text, so that the loop may load whole words.
constexpr std::size_t kPadding = 32;
/// Longer values are left to the careful reader, which knows how long a line may be.
constexpr std::size_t kLongestPlainValue = 64;
/// The shortest line is "1 1 1\n"; the last may lack its newline.
constexpr std::size_t kShortestLine = 6;

std::uint64_t load_word(const char* at) {
  std::uint64_t word = 0;
  std::memcpy(&word, at, sizeof word);
  return word;
}

/// The digits at the start of a word of text: how many, and their number. From 8 digits on, `value`
/// is unspecified.
struct Digits {
  unsigned count;
  std::uint32_t value;
};

inline Digits read_digits(std::uint64_t word) {
  const std::uint64_t x = word ^ 0x3030303030303030U;  // a digit's byte becomes 0 … 9
  const std::uint64_t others = ((x + 0x7676767676767676U) | x) & 0x8080808080808080U;
  const auto count = static_cast<unsigned>(std::countr_zero(others)) / 8;
  // Leading zeros take the place of what follows the digits; then pairs, fours and eights are
  // joined.
  const std::uint64_t digits = (x << 8) << ((56 - 8 * count) & 63);
  const std::uint64_t pairs =
      (digits & 0x00ff00ff00ff00ffU) * 10 + ((digits >> 8) & 0x00ff00ff00ff00ffU);
  const std::uint64_t fours =
      (pairs & 0x0000ffff0000ffffU) * 100 + ((pairs >> 16) & 0x0000ffff0000ffffU);
  return {count, static_cast<std::uint32_t>((fours & 0xffffffffU) * 10000 + (fours >> 32))};
}

inline bool is_separator(char c) { return c == '\t' || c == ' '; }
/// 1 to 7 digits.
inline bool is_plain(unsigned digits) { return digits - 1 < 7; }

std::uint64_t low_bytes(std::size_t count) {
  return count >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (8 * count)) - 1;
}

}  // namespace

std::span<char> TsvParser::text(std::size_t bytes) {
  // One byte more for a newline at the file's end.
  if (bytes + 1 > text_capacity_) {
    text_capacity_ = bytes + 1;
    text_.reset(new char[text_capacity_ + kPadding]);
  }
  return {text_.get(), bytes};
}

void TsvParser::reserve(std::size_t text_bytes) {
  const std::size_t entries = text_bytes / kShortestLine + 1;
  if (entries <= capacity_) return;
  capacity_ = entries;
  cols_.reset(new std::uint32_t[entries]);
  values_.reset(new float[entries]);
  runs_.reset(new TsvRun[entries]);
}

void TsvParser::parse(const TsvFormat& format, std::size_t begin, std::size_t owned,
                      std::size_t bytes, bool at_end) {
  if (at_end && bytes > 0 && text_[bytes - 1] != '\n') text_[bytes++] = '\n';
  std::memset(text_.get() + bytes, 0, kPadding);
  reserve(bytes - begin);
  format_ = &format;
  count_ = run_count_ = 0;
  last_key_ = -1;
  ascending_ = true;
  varied_ = blank_ = false;
  error_.reset();

  const char* at = text_.get() + begin;
  const char* const stop = text_.get() + owned;
  const char* const end = text_.get() + bytes;
  while (at < stop && !error_) {
    if (!blank_) {
      at = format.row_first ? parse_plain_lines<true>(at, stop, end)
                            : parse_plain_lines<false>(at, stop, end);
    }
    if (at < stop) at = parse_any_line(at, end);
  }
}

inline void TsvParser::append(std::uint32_t row, std::uint32_t col, float value) {
  const std::int64_t key = (std::int64_t{row} << 32) | col;
  ascending_ &= key > last_key_;
  if (count_ == 0 || row != runs_[run_count_ - 1].row) {
    runs_[run_count_++] = {row, static_cast<std::uint32_t>(count_)};
  }
  last_key_ = key;
  cols_[count_] = col;
  values_[count_] = value;
  varied_ |= std::bit_cast<std::uint32_t>(value) != std::bit_cast<std::uint32_t>(values_[0]);
  ++count_;
}

template <bool RowFirst>
const char* TsvParser::parse_plain_lines(const char* at, const char* stop, const char* end) {
  const auto first_limit = static_cast<std::uint32_t>(format_->first.limit);
  const auto second_limit = static_cast<std::uint32_t>(format_->second.limit);
  while (at < stop) {
    const Digits first = read_digits(load_word(at));
    const char* const after_first = at + first.count;
    const Digits second = read_digits(load_word(after_first + 1));
    const char* const after_second = after_first + 1 + second.count;
    if (!is_plain(first.count) || !is_plain(second.count) || !is_separator(*after_first) ||
        !is_separator(*after_second) || first.value - 1 >= first_limit ||
        second.value - 1 >= second_limit) {
      break;
    }
    const char* const value = after_second + 1;
    const std::uint64_t low = (load_word(value) ^ known_.low) & known_.low_mask;
    const std::uint64_t high = (load_word(value + 8) ^ known_.high) & known_.high_mask;
    if (((low | high) != 0 || !known_.recognisable) && !learn_value(value, end)) break;
    append((RowFirst ? first.value : second.value) - 1, (RowFirst ? second.value : first.value) - 1,
           known_.value);
    at = value + known_.bytes;
  }
  return at;
}

bool TsvParser::learn_value(const char* at, const char* end) {
  const std::string_view text(at, std::min(static_cast<std::size_t>(end - at), kLongestPlainValue));
  known_.recognisable = false;
  std::size_t bytes = read_finite_float(text, known_.value);
  if (bytes == 0) return false;
  if (bytes < text.size() && text[bytes] == '\r') ++bytes;
  if (bytes >= text.size() || text[bytes] != '\n') return false;
  known_.bytes = bytes + 1;
  known_.low = load_word(at);
  known_.high = load_word(at + 8);
  known_.low_mask = low_bytes(known_.bytes);
  known_.high_mask = known_.bytes > 8 ? low_bytes(known_.bytes - 8) : 0;
  known_.recognisable = known_.bytes <= 16;
  return true;
}

const char* TsvParser::parse_any_line(const char* at, const char* end) {
  const auto most = std::min<std::size_t>(static_cast<std::size_t>(end - at), kMaxLineBytes + 1);
  const auto* newline = static_cast<const char*>(std::memchr(at, '\n', most));
  if (newline == nullptr) {
    error_ = fmt::format("the line is longer than {} bytes; an entry is three short fields",
                         kMaxLineBytes);
    return end;
  }
  const std::string_view line(at, static_cast<std::size_t>(newline - at));
  if (is_blank(line)) {
    blank_ = true;
    return newline + 1;
  }
  if (blank_) {
    error_ = "blank line between entries; remove it";
    return newline + 1;
  }
  TsvLine entry = read_tsv_line(line, *format_);
  if (entry.error) {
    error_ = std::move(entry.error);
  } else {
    const auto first = static_cast<std::uint32_t>(entry.first - 1);
    const auto second = static_cast<std::uint32_t>(entry.second - 1);
    append(format_->row_first ? first : second, format_->row_first ? second : first, entry.value);
  }
  return newline + 1;
}

}  // namespace spdnn
