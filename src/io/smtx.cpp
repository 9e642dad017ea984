// SMTX, the format of the Deep Learning Matrix Collection (Gale, Elsen and Hooker, 2019): a line
// "rows, columns, entries", a line of row offsets, a line of columns, all from 0. No values:
// patterns of pruned networks, whose entries are read as 1.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "csr_arrays.hpp"
#include "network_format.hpp"
#include "text_file.hpp"

namespace spdnn {
namespace {

/// Takes `count` whole numbers, of which there is at least one byte each and one between two.
std::vector<std::int64_t> take_integers(TextFile& text, const char* name, std::int64_t count) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  std::vector<std::int64_t> values;
  if (count == 0) return values;
  text.need(name);
  values.reserve(static_cast<std::size_t>(std::min(count, std::ssize(text.line()) / 2 + 1)));
  for (std::int64_t k = 0; k < count; ++k) values.push_back(text.take_integer(name, 0, kMost));
  text.end_line();
  return values;
}

/// The three sizes of the first line, with commas between them, or spaces.
std::vector<std::int64_t> take_sizes(TextFile& text) {
  text.need("rows, columns, entries");
  std::string line(text.line());
  std::replace(line.begin(), line.end(), ',', ' ');
  std::string_view rest = line;
  std::vector<std::int64_t> sizes;
  for (const char* name : {"rows", "columns", "entries"}) {
    std::optional<std::string> error;
    const auto size =
        read_id(take_field(rest), {name, most_rows(text.bytes()), 0}, "is it an SMTX file?", error);
    if (!size) text.fail(*error);
    sizes.push_back(*size);
  }
  if (!is_blank(rest)) text.fail(quote(take_field(rest)) + " follows rows, columns, entries");
  return sizes;
}

}  // namespace

Csr read_smtx(const std::filesystem::path& file) {
  TextFile text(file);
  const std::vector<std::int64_t> sizes = take_sizes(text);
  const std::int64_t rows = sizes[0];
  const std::int64_t nnz = sizes[2];
  const std::vector<std::int64_t> offsets = take_integers(text, "row offset", rows + 1);
  const std::vector<std::int64_t> cols = take_integers(text, "column", nnz);
  while (text.next()) {
    if (!is_blank(text.line())) text.fail("more follows the columns; is it an SMTX file?");
  }
  const std::vector<float> ones(cols.size(), 1.0F);
  return csr_of_arrays(file, make_tensor("row offsets", offsets), make_tensor("columns", cols),
                       make_tensor("values", ones), rows, sizes[1]);
}

void write_smtx(const std::filesystem::path& file, const CsrView& matrix) {
  for (std::int64_t k = 0; k < matrix.stored_values(); ++k) {
    if (matrix.value(k) != 1.0) {
      throw InputError(file,
                       fmt::format("SMTX holds no values, but entry {} is {}; only patterns of "
                                   "ones can be written so: choose another format",
                                   k + 1, matrix.value(k)));
    }
  }
  OutputFile output(file);
  std::string text = fmt::format("{}, {}, {}\n", matrix.rows, matrix.cols, matrix.nnz);
  const auto append = [&](std::int64_t value, char separator) {
    fmt::format_to(std::back_inserter(text), "{}{}", value, separator);
    if (text.size() < (std::size_t{1} << 20)) return;
    output.write(text);
    text.clear();
  };
  for (std::int64_t row = 0; row <= matrix.rows; ++row) {
    append(matrix.row_begin(row), row == matrix.rows ? '\n' : ' ');
  }
  for (std::int64_t k = 0; k < matrix.nnz; ++k) {
    append(matrix.col(k), k + 1 == matrix.nnz ? '\n' : ' ');
  }
  output.write(text);
  output.commit();
}

}  // namespace spdnn
