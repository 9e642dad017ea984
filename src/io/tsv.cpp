// Reading a text file piece by piece, on all threads.
#include "tsv.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "files.hpp"
#include "parallel.hpp"
#include "tsv_assemble.hpp"

namespace spdnn {
namespace {

/// Image ids up to this are taken from a file of any size. Larger ones need a file of at least as
/// many bytes, so that one wrong digit can't ask for gigabytes of empty rows.
constexpr std::int64_t kManyRows = std::int64_t{1} << 24;

/// Reads and parses the piece of `file` from `begin` to `end`. A line belongs to the piece that its
/// first byte lies in, so the byte before the piece and the rest of its last line are read as well.
template <class Index>
Chunk<Index> parse_piece(const InputFile& file, const TsvFormat& format, Range piece,
                         TsvParser& parser) {
  const std::int64_t from = std::max<std::int64_t>(piece.begin - 1, 0);
  const std::int64_t to = std::min(piece.end + kMaxLineBytes, file.bytes());
  const std::span<char> text = parser.text(static_cast<std::size_t>(to - from));
  file.read_at(from, text);
  const auto owned = static_cast<std::size_t>(piece.end - from);
  std::size_t begin = 0;
  if (piece.begin > 0) {
    const auto newline =
        std::find(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(owned), '\n');
    begin = static_cast<std::size_t>(newline - text.begin()) + 1;
  }
  Chunk<Index> chunk;
  if (begin >= owned) return chunk;
  parser.parse(format, begin, owned, text.size(), to == file.bytes());
  const auto cols = parser.cols();
  chunk.cols.resize(cols.size());
  std::transform(cols.begin(), cols.end(), chunk.cols.begin(),
                 [](std::uint32_t col) { return static_cast<Index>(col); });
  chunk.values.assign(parser.values().begin(), parser.values().end());
  chunk.runs.assign(parser.runs().begin(), parser.runs().end());
  chunk.ascending = parser.ascending();
  chunk.blank = parser.blank();
  chunk.error = parser.error();
  return chunk;
}

}  // namespace

TsvReader::TsvReader(TsvFormat format, int threads, std::int64_t chunk_bytes)
    : format_(std::move(format)),
      chunk_bytes_(chunk_bytes),
      parsers_(static_cast<std::size_t>(std::max(threads, 1))) {}

Csr TsvReader::read(const std::filesystem::path& path) {
  const InputFile file(path, format_.missing_remedy);
  if (file.bytes() == 0) {
    throw InputError(path, fmt::format("is empty, but needs at least one entry: {}, {}, value",
                                       format_.first.name, format_.second.name));
  }
  TsvFormat format = format_;
  if (format.rows_from_file) {
    TsvField& row = format.row_first ? format.first : format.second;
    row.limit = std::min(row.limit, std::max(kManyRows, file.bytes()));
  }
  const std::int64_t cols = format.row_first ? format.second.limit : format.first.limit;
  return cols <= 65536 ? read_as<std::uint16_t>(file, format)
                       : read_as<std::uint32_t>(file, format);
}

template <class Index>
Csr TsvReader::read_as(const InputFile& file, const TsvFormat& format) {
  const std::int64_t pieces = (file.bytes() + chunk_bytes_ - 1) / chunk_bytes_;
  std::vector<Chunk<Index>> chunks(static_cast<std::size_t>(pieces));
  std::atomic<std::int64_t> first_error{pieces};
  for_each_piece(
      pieces, static_cast<int>(parsers_.size()), [&](std::int64_t piece, std::size_t worker) {
        if (piece > first_error) return;
        const Range range{piece * chunk_bytes_, std::min((piece + 1) * chunk_bytes_, file.bytes())};
        auto& chunk = chunks[static_cast<std::size_t>(piece)];
        chunk = parse_piece<Index>(file, format, range, parsers_[worker]);
        if (!chunk.error) return;
        for (std::int64_t seen = first_error; piece < seen;) {
          if (first_error.compare_exchange_weak(seen, piece)) break;
        }
      });

  BadLine bad = cut_at_bad_line(chunks);
  const std::int64_t entries = count_entries(chunks);
  const bool ordered = in_order(chunks);
  auto matrix = std::make_shared<TsvMatrix<Index>>();
  const TsvField& row_field = format.row_first ? format.first : format.second;
  const std::int64_t cols = format.row_first ? format.second.limit : format.first.limit;
  const std::int64_t rows = format.rows_from_file ? rows_in(chunks) : row_field.limit;
  matrix->row_offsets = offsets_of(chunks, rows);
  if (!ordered) {
    scatter(chunks, entries, *matrix);
    const std::vector<bool> repeated = sort_rows(*matrix);
    if (std::find(repeated.begin(), repeated.end(), true) != repeated.end()) {
      BadLine repetition = first_repetition(chunks, repeated, format);
      if (repetition.line < bad.line) bad = std::move(repetition);
    }
  }
  if (!bad.message.empty()) throw InputError(file.path(), bad.line, bad.message);
  if (entries == 0) {
    throw InputError(file.path(), fmt::format("holds blank lines alone, but needs at least one "
                                              "entry: {}, {}, value",
                                              format.first.name, format.second.name));
  }
  if (ordered) join(chunks, entries, *matrix);
  return finish(std::move(matrix), rows, cols);
}

}  // namespace spdnn
