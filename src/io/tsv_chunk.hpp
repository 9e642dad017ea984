// Parsing one piece of a text file of entries, on one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace spdnn {

/// One of the two ids of an entry: what it is called and what it may be.
struct TsvField {
  std::string name;
  std::int64_t limit = 0;  ///< at most 2³¹ − 1
  std::int64_t least = 1;
};

/// What the lines of a file mean.
struct TsvFormat {
  TsvField first, second;
  bool row_first = false;  ///< whether the first id is the row, or the second
  bool rows_from_file =
      false;                   ///< the matrix has as many rows as the largest row id, not the limit
  std::string missing_remedy;  ///< what to do when the file is not there
  std::string remedy;          ///< what to do when an id is out of range
};

/// The longest line that is read, in bytes; longer ones are an error.
inline constexpr std::int64_t kMaxLineBytes = 4096;

/// Entries of one row that follow one another in the text.
struct TsvRun {
  std::uint32_t row = 0;
  std::uint32_t begin = 0;  ///< index of the first entry; they end where the next run begins
};

/// Parses pieces of text into arrays that it keeps and overwrites with the next piece.
class TsvParser {
 public:
  /// Space for a piece of up to `bytes` bytes; what it held before is lost.
  [[nodiscard]] std::span<char> text(std::size_t bytes);

  /// Parses the lines that begin in the first `owned` bytes of `text()`, from `begin` on, up to the
  /// first that is wrong. Text behind them, up to `bytes`, completes the last line; the file's end,
  /// when `at_end`, completes it as well.
  void parse(const TsvFormat& format, std::size_t begin, std::size_t owned, std::size_t bytes,
             bool at_end);

  /// 0-based columns of the entries, in the order of the text.
  [[nodiscard]] std::span<const std::uint32_t> cols() const { return {cols_.get(), count_}; }
  /// One value for all entries when they are equal to the bit, otherwise one for each.
  [[nodiscard]] std::span<const float> values() const {
    return {values_.get(), varied_ || count_ == 0 ? count_ : 1};
  }
  [[nodiscard]] std::span<const TsvRun> runs() const { return {runs_.get(), run_count_}; }
  /// Whether (row, column) ascends strictly from entry to entry.
  [[nodiscard]] bool ascending() const { return ascending_; }
  /// Whether a blank line follows the last entry.
  [[nodiscard]] bool blank() const { return blank_; }
  /// What is wrong with the line after the last entry (after the blank one when `blank()`).
  [[nodiscard]] const std::optional<std::string>& error() const { return error_; }

 private:
  /// The text of the value parsed last, with the line's end, and what it means.
  struct KnownValue {
    std::uint64_t low = 0, high = 0;            ///< the first 16 bytes
    std::uint64_t low_mask = 0, high_mask = 0;  ///< those that count
    std::size_t bytes = 0;
    bool recognisable = false;  ///< no longer than the 16 bytes
    float value = 0.0F;
  };

  template <bool RowFirst>
  const char* parse_plain_lines(const char* at, const char* stop, const char* end);
  const char* parse_any_line(const char* at, const char* end);
  [[nodiscard]] bool learn_value(const char* at, const char* end);
  void append(std::uint32_t row, std::uint32_t col, float value);
  void reserve(std::size_t text_bytes);

  std::unique_ptr<char[]> text_;
  std::size_t text_capacity_ = 0;
  std::size_t capacity_ = 0;  ///< entries that fit the arrays
  std::unique_ptr<std::uint32_t[]> cols_;
  std::unique_ptr<float[]> values_;
  std::unique_ptr<TsvRun[]> runs_;
  std::size_t count_ = 0, run_count_ = 0;
  std::int64_t last_key_ = -1;  ///< row · 2³² + column of the last entry
  bool ascending_ = true, varied_ = false, blank_ = false;
  std::optional<std::string> error_;
  KnownValue known_;
  const TsvFormat* format_ = nullptr;
};

}  // namespace spdnn
