// The header of an array: magic, version, length, then a Python dictionary of three known keys.
#include "npy.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "safetensors.hpp"
#include "tsv_line.hpp"

namespace spdnn {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
/// Bytes of a text that is read, e.g. the name of a sparse format.
constexpr std::int64_t kMaxText = 64;

/// Takes a Python dictionary of strings, True, False and tuples of whole numbers apart.
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : rest_(text) {}

  std::string descr;
  std::vector<std::int64_t> shape;

  /// Whether the text is such a dictionary, with each of the three keys once.
  bool parse() {
    if (!take('{')) return false;
    int seen = 0;
    while (!take('}')) {
      const auto key = take_string();
      if (!key || !take(':')) return false;
      const int bit = *key == "descr" ? 1 : *key == "shape" ? 2 : *key == "fortran_order" ? 4 : 0;
      if (bit == 0 || (seen & bit) != 0) return false;
      seen |= bit;
      if (!(bit == 1 ? take_descr() : bit == 2 ? take_shape() : take_flag())) return false;
      if (!take(',') && (rest_.empty() || rest_.front() != '}')) return false;
    }
    skip_spaces();
    return rest_.empty() && seen == 7;
  }

 private:
  void skip_spaces() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \n\t"), rest_.size()));
  }
  bool take(char c) {
    skip_spaces();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    skip_spaces();
    return true;
  }
  std::optional<std::string> take_string() {
    skip_spaces();
    if (rest_.empty() || (rest_.front() != '\'' && rest_.front() != '"')) return std::nullopt;
    const auto end = rest_.find(rest_.front(), 1);
    if (end == std::string_view::npos) return std::nullopt;
    std::string text(rest_.substr(1, end - 1));
    rest_.remove_prefix(end + 1);
    return text;
  }
  bool take_descr() {
    auto text = take_string();
    if (text) descr = std::move(*text);
    return text.has_value();
  }
  bool take_flag() {
    for (const std::string_view word : {"True", "False"}) {
      if (!rest_.starts_with(word)) continue;
      // Rows or columns first makes no difference to what is read, which has one dimension.
      rest_.remove_prefix(word.size());
      return true;
    }
    return false;
  }
  bool take_shape() {
    if (!take('(')) return false;
    while (!take(')')) {
      std::optional<std::string> error;
      const auto digits = rest_.substr(0, rest_.find_first_not_of("0123456789"));
      const auto size =
          read_id(digits, {"size", std::numeric_limits<std::int64_t>::max(), 0}, "", error);
      if (!size) return false;
      rest_.remove_prefix(digits.size());
      shape.push_back(*size);
      if (!take(',') && (rest_.empty() || rest_.front() != ')')) return false;
    }
    return true;
  }

  std::string_view rest_;
};

struct NumberType {
  std::string_view descr;  ///< without the byte order
  ElementType type;
};
constexpr NumberType kNumbers[] = {
    {"f2", ElementType::f16}, {"f4", ElementType::f32}, {"f8", ElementType::f64},
    {"i1", ElementType::i8},  {"u1", ElementType::u8},  {"b1", ElementType::boolean},
    {"i2", ElementType::i16}, {"u2", ElementType::u16}, {"i4", ElementType::i32},
    {"u4", ElementType::u32}, {"i8", ElementType::i64}, {"u8", ElementType::u64}};

/// The bytes that the elements of a shape take; nothing where they are more than `most`.
std::optional<std::int64_t> bytes_of(const std::vector<std::int64_t>& shape, std::int64_t bytes,
                                     std::int64_t most) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  for (const std::int64_t size : shape) {
    if (bytes == 0 || size > most / bytes) return std::nullopt;
    bytes *= size;
  }
  return bytes;
}

/// The header of an array, parsed; `bytes` become the data behind it.
HeaderParser parse_header(std::span<const std::byte>& bytes,
                          const std::function<void(const std::string&)>& fail) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.size() < 10 || !text.starts_with(kMagic)) fail("is not a NumPy array (.npy)");
  const int version = static_cast<unsigned char>(text[6]);
  std::size_t begin = 10;
  std::uint32_t length = 0;
  if (version == 1) {
    std::uint16_t narrow = 0;
    std::memcpy(&narrow, text.data() + 8, sizeof narrow);
    length = narrow;
  } else if ((version == 2 || version == 3) && text.size() >= 12) {
    begin = 12;
    std::memcpy(&length, text.data() + 8, sizeof length);
  } else {
    fail(fmt::format("has version {} of the .npy format; 1, 2 and 3 are read", version));
  }
  if (length > text.size() - begin) {
    fail(fmt::format("promises a header of {} bytes, but {} follow", length, text.size() - begin));
  }
  HeaderParser header(text.substr(begin, length));
  if (!header.parse()) {
    fail(fmt::format("has the header {}, which is none: descr, fortran_order and shape are needed",
                     quote(text.substr(begin, length))));
  }
  bytes = bytes.subspan(begin + length);
  return header;
}

}  // namespace

NpyArray read_npy(const std::filesystem::path& file, const std::string& name,
                  std::span<const std::byte> bytes) {
  const std::function<void(const std::string&)> fail = [&](const std::string& what) {
    throw InputError(file, fmt::format("{} {}", quote(name), what));
  };
  const HeaderParser header = parse_header(bytes, fail);
  NpyArray array;
  array.tensor.name = name;
  array.tensor.shape = header.shape;
  const std::string_view descr = header.descr;
  const std::string_view kind = descr.empty() ? descr : descr.substr(1);
  const bool swapped = descr.starts_with('>') && kind != "i1" && kind != "u1" && kind != "b1";
  std::int64_t element = 0;
  for (const NumberType& number : kNumbers) {
    if (kind == number.descr) {
      array.tensor.type = number.type;
      element = static_cast<std::int64_t>(size_of(number.type));
    }
  }
  array.is_text = kind.starts_with('S') || kind.starts_with('U');
  if (array.is_text) {
    std::optional<std::string> error;
    const std::int64_t length =
        read_id(kind.substr(1), {"length", kMaxText, 0}, "", error).value_or(-1);
    if (length < 0 || !header.shape.empty()) fail(fmt::format("has the type {}", quote(descr)));
    element = kind.starts_with('U') ? 4 * length : length;
  }
  if (swapped || (element == 0 && !array.is_text)) {
    fail(
        fmt::format("has the type {}, but little-endian numbers are needed, such as <f4, <f8, <i4 "
                    "or <i8; convert it with NumPy's astype",
                    quote(descr)));
  }
  const auto expected = bytes_of(header.shape, element, std::ssize(bytes));
  if (expected != std::ssize(bytes)) {
    fail(fmt::format("has the shape {} of {}, but {} bytes of data", shape_text(header.shape),
                     quote(descr), bytes.size()));
  }
  if (!array.is_text) {
    array.tensor.data = bytes;
    return array;
  }
  for (std::size_t k = 0; k < bytes.size(); k += kind.starts_with('U') ? 4 : 1) {
    if (bytes[k] != std::byte{0}) array.text += static_cast<char>(bytes[k]);
  }
  return array;
}

std::string npy_header(std::string_view descr, std::span<const std::int64_t> shape) {
  constexpr std::size_t kAlignment = 64;
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}",
                                 descr, fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
  const std::size_t before = kMagic.size() + 4 + text.size() + 1;
  text.append((kAlignment - before % kAlignment) % kAlignment, ' ');
  text += '\n';
  std::string header(kMagic);
  header += {'\1', '\0'};
  const auto length = static_cast<std::uint16_t>(text.size());
  header.append(reinterpret_cast<const char*>(&length), sizeof length);
  return header + text;
}

}  // namespace spdnn
