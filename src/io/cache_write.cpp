// Writing caches: sections as they come, then the table, and the header last.
#include <fmt/format.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <span>
#include <system_error>
#include <utility>

#include "cache.hpp"
#include "cache_format.hpp"
#include "files.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

template <class T>
void append(std::string& table, const T& value) {
  table.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void append_text(std::string& table, const std::string& text) {
  append(table, static_cast<std::uint32_t>(text.size()));
  table += text;
}

}  // namespace

std::vector<SourceStamp> stamp_sources(const std::vector<std::filesystem::path>& files) {
  std::vector<SourceStamp> stamps;
  stamps.reserve(files.size());
  for (const auto& file : files) {
    struct ::stat status {};
    if (::stat(file.c_str(), &status) != 0) {
      throw SystemError(fmt::format("{}: can't be looked at: {}", file.string(),
                                    std::generic_category().message(errno)));
    }
    stamps.push_back({file.filename().string(), status.st_size, modified_ns(status)});
  }
  return stamps;
}

struct CacheWriter::State {
  State(const std::filesystem::path& file, std::string origin_text,
        std::vector<SourceStamp> source_stamps)
      : output(file), origin(std::move(origin_text)), sources(std::move(source_stamps)) {}

  void write(std::span<const std::byte> bytes) {
    output.write(bytes);
    position += std::ssize(bytes);
  }
  void align() {
    static constexpr std::array<std::byte, kCacheAlignment> kZeros = {};
    write(std::span(kZeros).first(static_cast<std::size_t>(aligned(position) - position)));
  }
  std::uint64_t write_section(std::span<const std::byte> bytes) {
    align();
    write(bytes);
    return XXH3_64bits(bytes.data(), bytes.size());
  }
  [[nodiscard]] std::string table() const;

  OutputFile output;
  std::int64_t position = 0;
  std::string origin;
  std::vector<SourceStamp> sources;
  std::vector<CacheMatrix> matrices;
};

std::string CacheWriter::State::table() const {
  std::string table;
  for (const CacheMatrix& matrix : matrices) append(table, matrix);
  append(table, static_cast<std::uint32_t>(sources.size()));
  for (const SourceStamp& source : sources) {
    append_text(table, source.name);
    append(table, source.bytes);
    append(table, source.modified_ns);
  }
  append_text(table, origin);
  return table;
}

CacheWriter::CacheWriter(const std::filesystem::path& file, std::string origin,
                         std::vector<SourceStamp> sources)
    : state_(std::make_unique<State>(file, std::move(origin), std::move(sources))) {
  const CacheHeader empty;
  state_->write(std::as_bytes(std::span(&empty, 1)));
}

CacheWriter::~CacheWriter() = default;

void CacheWriter::add(const CsrView& matrix) {
  CacheMatrix entry;
  entry.rows = matrix.rows;
  entry.cols = matrix.cols;
  entry.nnz = matrix.nnz;
  entry.has_offsets = matrix.row_offsets != nullptr ? 1 : 0;
  entry.row_nnz = entry.has_offsets != 0 || matrix.rows == 0 ? 0 : matrix.row_nnz;
  entry.index_bytes = static_cast<std::uint8_t>(size_of(matrix.index_type));
  entry.value_bytes = static_cast<std::uint8_t>(size_of(matrix.value_type));
  entry.shared_value = matrix.shared_value ? 1 : 0;

  std::vector<std::int64_t> rebased;
  const std::int64_t* offsets = matrix.row_offsets;
  if (offsets != nullptr && offsets[0] != 0) {  // a slice of rows
    for (std::int64_t row = 0; row <= matrix.rows; ++row) rebased.push_back(matrix.row_begin(row));
    offsets = rebased.data();
  }
  const std::array<const void*, 3> data = {offsets, matrix.col_indices, matrix.values};
  const std::array<std::int64_t, 3> bytes = section_bytes(entry);
  for (std::size_t section = 0; section < data.size(); ++section) {
    entry.checksums[section] = state_->write_section(
        {static_cast<const std::byte*>(data[section]), static_cast<std::size_t>(bytes[section])});
  }
  state_->matrices.push_back(entry);
}

void CacheWriter::set_sources(std::vector<SourceStamp> sources) {
  state_->sources = std::move(sources);
}

void CacheWriter::finish() {
  state_->align();
  CacheHeader header;
  header.table_at = state_->position;
  header.matrices = std::ssize(state_->matrices);
  const std::string table = state_->table();
  header.file_bytes = header.table_at + std::ssize(table);
  header.checksum =
      XXH3_64bits_withSeed(table.data(), table.size(), XXH3_64bits(&header, sizeof header));
  state_->write(std::as_bytes(std::span(table)));
  state_->output.write_at(0, std::as_bytes(std::span(&header, 1)));
  state_->output.commit();
}

void write_cache(const std::filesystem::path& file, const std::vector<Csr>& matrices,
                 const std::string& origin) {
  CacheWriter writer(file, origin);
  for (const Csr& matrix : matrices) writer.add(matrix.view());
  writer.finish();
}

}  // namespace spdnn
