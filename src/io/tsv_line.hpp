// One line of text, read slowly and with care: any spacing, and an error that says what is wrong.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tsv_chunk.hpp"

namespace spdnn {

/// An entry, or why a line is none.
struct TsvLine {
  std::int64_t first = 0, second = 0;  ///< as in the file, from 1
  float value = 0.0F;
  std::optional<std::string> error;
};

/// Whether a line (without its newline) holds nothing but spaces, tabs and a carriage return.
[[nodiscard]] bool is_blank(std::string_view line);

/// Reads a line, given without its newline.
[[nodiscard]] TsvLine read_tsv_line(std::string_view line, const TsvFormat& format);

/// Takes the next field, up to a space or tab, from the front of `line`; empty when there is none.
[[nodiscard]] std::string_view take_field(std::string_view& line);

/// Reads an id from `field.least` to `field.limit`; on failure returns nothing and explains in
/// `error`.
[[nodiscard]] std::optional<std::int64_t> read_id(std::string_view text, const TsvField& field,
                                                  std::string_view remedy,
                                                  std::optional<std::string>& error);

/// Reads a finite number as float from the front of `text`; returns the bytes taken, 0 when there
/// is no such number there.
[[nodiscard]] std::size_t read_finite_float(std::string_view text, float& value);

/// A field as it may stand in a message: in quotes, cut short, unprintable bytes as \xNN.
[[nodiscard]] std::string quote(std::string_view field);

}  // namespace spdnn
