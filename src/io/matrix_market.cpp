// Matrix Market files (Boisvert, Pozo and Remington, NISTIR 5935, 1996): a banner, comments, sizes,
// then one entry a line, ids from 1.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "csr_arrays.hpp"
#include "network_format.hpp"
#include "text_file.hpp"

namespace spdnn {
namespace {

/// Text is written in pieces of about this many bytes.
constexpr std::size_t kPiece = std::size_t{1} << 20;

std::string lower(std::string_view word) {
  std::string text(word);
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

/// Reads the banner; returns whether entries have values.
bool read_banner(TextFile& text) {
  text.next();
  if (text.take_word() != "%%MatrixMarket") {
    text.fail("does not begin with %%MatrixMarket; is it a Matrix Market file?");
  }
  const auto expect = [&](const char* what, std::initializer_list<std::string_view> allowed) {
    const std::string_view found = text.take_word();
    std::string word = lower(found);
    if (std::find(allowed.begin(), allowed.end(), word) == allowed.end()) {
      text.fail(fmt::format("{} {} can't be read; it must be {}", what, quote(found),
                            fmt::join(allowed, ", ")));
    }
    return word;
  };
  expect("object", {"matrix"});
  expect("format", {"coordinate"});
  const std::string field = expect("field", {"real", "integer", "pattern", "double"});
  expect("symmetry", {"general"});
  text.end_line();
  return field != "pattern";
}

}  // namespace

Csr read_matrix_market(const std::filesystem::path& file) {
  TextFile text(file);
  const bool valued = read_banner(text);
  do {
    text.need("rows, columns and entries");
  } while (text.line().starts_with('%'));
  const std::int64_t rows = text.take_integer("rows", 0, most_rows(text.bytes()));
  const std::int64_t cols = text.take_integer("columns", 0, kMaxNeurons);
  // An entry takes at least four bytes: "1 1\n".
  const std::int64_t nnz =
      text.take_integer("entries", 0, (text.bytes() + 1) / 4, "is the file cut short?");
  text.end_line();
  std::vector<Entry> entries;
  entries.reserve(static_cast<std::size_t>(nnz));
  const std::int64_t first_line = text.number() + 1;
  for (std::int64_t k = 0; k < nnz; ++k) {
    if (!text.next()) {
      text.fail(fmt::format("the file ends after {} of {} entries; is it cut short?", k, nnz));
    }
    Entry entry;
    entry.row = static_cast<std::uint32_t>(text.take_integer("row", 1, rows) - 1);
    entry.col = static_cast<std::uint32_t>(text.take_integer("column", 1, cols) - 1);
    entry.value = valued ? text.take_float("value") : 1.0F;
    text.end_line();
    entries.push_back(entry);
  }
  while (text.next()) {
    if (!is_blank(text.line())) {
      text.fail(fmt::format("{} follows the {} entries that line {} promises; remove it",
                            quote(text.line()), nnz, first_line - 1));
    }
  }
  return csr_of_entries(file, rows, cols, entries, first_line);
}

void write_matrix_market(const std::filesystem::path& file, const CsrView& matrix) {
  OutputFile output(file);
  std::string text = fmt::format("%%MatrixMarket matrix coordinate real general\n{} {} {}\n",
                                 matrix.rows, matrix.cols, matrix.nnz);
  for (std::int64_t row = 0; row < matrix.rows; ++row) {
    for (std::int64_t k = matrix.row_begin(row); k < matrix.row_begin(row + 1); ++k) {
      fmt::format_to(std::back_inserter(text), "{} {} {}\n", row + 1, matrix.col(k) + 1,
                     static_cast<float>(matrix.value(k)));
      if (text.size() < kPiece) continue;
      output.write(text);
      text.clear();
    }
  }
  output.write(text);
  output.commit();
}

}  // namespace spdnn
