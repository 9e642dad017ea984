// Reading caches: a mapping, checked byte for byte before anything in it is believed.
#include <fmt/format.h>
#include <sys/mman.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

#include "cache.hpp"
#include "cache_format.hpp"
#include "files.hpp"
#include "parallel.hpp"
#include "spdnn/io.hpp"

namespace spdnn {
namespace {

/// The exponent bits, all set in infinities and NaNs alone.
constexpr std::uint32_t kFloatExponent = 0x7f800000;
constexpr std::uint64_t kDoubleExponent = 0x7ff0000000000000;

/// The part of a mapping that holds one matrix.
class MappedMatrix final : public Storage {
 public:
  MappedMatrix(std::shared_ptr<const MappedFile> mapping, Range place, const CacheMatrix& matrix)
      : mapping_(std::move(mapping)), begin_(place.begin), end_(place.end), matrix_(matrix) {}
  void prefetch() const override {
    mapping_->require_whole();
    mapping_->advise(begin_, end_, MADV_WILLNEED);
  }
  void release() const override { mapping_->advise(begin_, end_, MADV_DONTNEED); }
  [[nodiscard]] std::optional<std::uint64_t> fingerprint(const CsrView& view) const override {
    const bool whole =
        view.rows == matrix_.rows && view.cols == matrix_.cols && view.nnz == matrix_.nnz;
    if (!whole) return std::nullopt;
    return XXH3_64bits(&matrix_, sizeof matrix_);
  }

 private:
  std::shared_ptr<const MappedFile> mapping_;
  std::int64_t begin_, end_;
  CacheMatrix matrix_;  ///< sizes and checksums, which were found right
};

/// Takes numbers and texts from the front of a table.
class TableReader {
 public:
  TableReader(const std::filesystem::path& file, std::span<const std::byte> rest)
      : file_(file), rest_(rest) {}
  template <class T>
  T take() {
    T value;
    std::memcpy(&value, take_bytes(sizeof value).data(), sizeof value);
    return value;
  }
  std::string take_text() {
    const auto bytes = take_bytes(take<std::uint32_t>());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  [[nodiscard]] std::size_t left() const { return rest_.size(); }

 private:
  std::span<const std::byte> take_bytes(std::size_t count) {
    if (count > rest_.size()) throw InputError(file_, "the table of a cache ends too early");
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  const std::filesystem::path& file_;
  std::span<const std::byte> rest_;
};

/// Why a matrix's sizes contradict one another; nothing when they fit. Afterwards no product of
/// them overflows.
std::string_view contradiction(const CacheMatrix& matrix, std::int64_t file_bytes) {
  const auto flag = [](std::uint8_t value) { return value <= 1; };
  if (!flag(matrix.has_offsets) || !flag(matrix.shared_value) ||
      (matrix.index_bytes != 2 && matrix.index_bytes != 4) ||
      (matrix.value_bytes != 4 && matrix.value_bytes != 8)) {
    return "an element type is unknown";
  }
  const auto dimension = [](std::int64_t size) { return size >= 0 && size <= kCacheMaxDimension; };
  if (!dimension(matrix.rows) || !dimension(matrix.cols)) return "more than 2^32 rows or columns";
  if (matrix.nnz < 0 || matrix.nnz > file_bytes || (matrix.nnz > 0 && matrix.rows == 0)) {
    return "the number of entries is impossible";
  }
  if (matrix.has_offsets != 0) return "";
  const bool fits = matrix.row_nnz == 0 ? matrix.nnz == 0
                                        : matrix.row_nnz > 0 && matrix.nnz % matrix.row_nnz == 0 &&
                                              matrix.nnz / matrix.row_nnz == matrix.rows;
  return fits ? "" : "entries and rows do not match";
}

/// Where a matrix lies in the file: its three sections, one after the other, and all of it.
struct Placement {
  std::array<Range, 3> sections;
  Range all;
};

template <class Index>
bool all_below(const std::byte* data, std::int64_t count, std::int64_t cols) {
  const auto* col = reinterpret_cast<const Index*>(data);
  Index largest = 0;
  for (std::int64_t k = 0; k < count; ++k) largest = std::max(largest, col[k]);
  return count == 0 || std::int64_t{largest} < cols;
}

/// Whether no value, seen as the integer `Bits`, has the exponent of infinities and NaNs.
template <class Bits>
bool all_finite(const std::byte* data, std::int64_t count, Bits exponent) {
  const auto* value = reinterpret_cast<const Bits*>(data);
  Bits largest = 0;
  for (std::int64_t k = 0; k < count; ++k) largest = std::max(largest, value[k] & exponent);
  return largest != exponent;
}

bool ascend_to(const std::byte* data, std::int64_t rows, std::int64_t nnz) {
  const auto* offset = reinterpret_cast<const std::int64_t*>(data);
  if (offset[0] != 0 || offset[rows] != nnz) return false;
  bool ascend = true;
  for (std::int64_t row = 0; row < rows; ++row) ascend &= offset[row] <= offset[row + 1];
  return ascend;
}

}  // namespace

struct CacheFile::State {
  explicit State(const std::filesystem::path& file) : path(file) {
    const InputFile input(file);
    mapping = std::make_shared<const MappedFile>(input);
  }
  void read_header();
  void read_table();
  [[noreturn]] void reject(std::string_view why) const {
    throw InputError(path, fmt::format("cache can't be trusted: {}", why));
  }
  void check_gap(std::int64_t begin, std::int64_t end) const;
  void check_matrix(std::size_t index) const;
  [[nodiscard]] Csr matrix(std::size_t index) const;

  std::filesystem::path path;
  std::shared_ptr<const MappedFile> mapping;
  CacheHeader header;
  std::vector<CacheMatrix> matrices;
  std::vector<Placement> places;
  std::vector<SourceStamp> sources;
  std::string origin;
};

void CacheFile::State::read_header() {
  const auto bytes = mapping->bytes();
  if (bytes.size() < sizeof header || std::memcmp(bytes.data(), kCacheMagic.data(), 8) != 0) {
    throw InputError(path, "is not a .spdnn file: it does not begin with SPDNNCSR");
  }
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.version != kCacheVersion) {
    reject(fmt::format("it has version {}, but this program reads version {}", header.version,
                       kCacheVersion));
  }
  if (header.file_bytes != std::ssize(bytes)) {
    reject(fmt::format("it has {} bytes, but should have {}", bytes.size(), header.file_bytes));
  }
  if (header.table_at < std::ssize(bytes) && header.table_at >= std::int64_t{sizeof header}) {
    const auto table = bytes.subspan(static_cast<std::size_t>(header.table_at));
    CacheHeader hashed = header;
    hashed.checksum = 0;
    const std::uint64_t seed = XXH3_64bits(&hashed, sizeof hashed);
    if (XXH3_64bits_withSeed(table.data(), table.size(), seed) == header.checksum) return;
  }
  reject("the checksum of its header and table does not match");
}

void CacheFile::State::read_table() {
  TableReader table(path, mapping->bytes().subspan(static_cast<std::size_t>(header.table_at)));
  if (header.matrices < 0 ||
      static_cast<std::size_t>(header.matrices) > table.left() / sizeof(CacheMatrix)) {
    reject("its table is smaller than the number of matrices needs");
  }
  std::int64_t position = sizeof header;
  for (std::int64_t index = 0; index < header.matrices; ++index) {
    const auto matrix = table.take<CacheMatrix>();
    if (const auto why = contradiction(matrix, header.file_bytes); !why.empty()) {
      reject(fmt::format("matrix {}: {}", index + 1, why));
    }
    Placement place;
    place.all.begin = position;
    for (std::size_t section = 0; section < 3; ++section) {
      const std::int64_t begin = aligned(position);
      position = begin + section_bytes(matrix)[section];
      if (position > header.table_at) reject(fmt::format("matrix {} is cut short", index + 1));
      place.sections[section] = {begin, position};
    }
    place.all.end = position;
    matrices.push_back(matrix);
    places.push_back(place);
  }
  if (aligned(position) != header.table_at) reject("its matrices and its table do not adjoin");
  check_gap(position, header.table_at);
  const auto count = table.take<std::uint32_t>();
  for (std::uint32_t source = 0; source < count; ++source) {
    SourceStamp& stamp = sources.emplace_back();
    stamp.name = table.take_text();
    stamp.bytes = table.take<std::int64_t>();
    stamp.modified_ns = table.take<std::int64_t>();
  }
  origin = table.take_text();
  if (table.left() != 0) reject("its table is larger than what it holds");
}

void CacheFile::State::check_gap(std::int64_t begin, std::int64_t end) const {
  const auto gap = mapping->bytes().subspan(static_cast<std::size_t>(begin),
                                            static_cast<std::size_t>(end - begin));
  if (std::any_of(gap.begin(), gap.end(), [](std::byte b) { return b != std::byte{0}; })) {
    reject("a gap between its sections is not zero");
  }
}

void CacheFile::State::check_matrix(std::size_t index) const {
  const CacheMatrix& matrix = matrices[index];
  const Placement& place = places[index];
  const std::byte* const base = mapping->bytes().data();
  std::int64_t position = place.all.begin;
  for (std::size_t section = 0; section < 3; ++section) {
    const Range range = place.sections[section];
    check_gap(position, range.begin);
    position = range.end;
    const auto sum = XXH3_64bits(base + range.begin, static_cast<std::size_t>(range.size()));
    if (sum != matrix.checksums[section]) {
      static constexpr std::array kNames = {"row offsets", "columns", "values"};
      reject(fmt::format("the checksum of the {} of matrix {} does not match", kNames[section],
                         index + 1));
    }
  }
  const std::byte* const cols = base + place.sections[1].begin;
  const std::byte* const values = base + place.sections[2].begin;
  const std::int64_t stored = place.sections[2].size() / matrix.value_bytes;
  if (matrix.has_offsets != 0 &&
      !ascend_to(base + place.sections[0].begin, matrix.rows, matrix.nnz)) {
    reject(fmt::format("row offsets of matrix {} do not ascend from 0 to its {} entries", index + 1,
                       matrix.nnz));
  }
  if (!(matrix.index_bytes == 2 ? all_below<std::uint16_t>(cols, matrix.nnz, matrix.cols)
                                : all_below<std::uint32_t>(cols, matrix.nnz, matrix.cols))) {
    reject(fmt::format("matrix {} has a column index that is not below its {} columns", index + 1,
                       matrix.cols));
  }
  if (!(matrix.value_bytes == 4 ? all_finite(values, stored, kFloatExponent)
                                : all_finite(values, stored, kDoubleExponent))) {
    reject(fmt::format("matrix {} has a value that is not finite", index + 1));
  }
}

Csr CacheFile::State::matrix(std::size_t index) const {
  const CacheMatrix& from = matrices[index];
  const Placement& place = places[index];
  const std::byte* const base = mapping->bytes().data();
  CsrView view;
  view.rows = from.rows;
  view.cols = from.cols;
  view.nnz = from.nnz;
  view.row_nnz = from.row_nnz;
  if (from.has_offsets != 0) {
    view.row_offsets = reinterpret_cast<const std::int64_t*>(base + place.sections[0].begin);
  }
  view.col_indices = base + place.sections[1].begin;
  view.values = base + place.sections[2].begin;
  view.index_type = from.index_bytes == 2 ? DType::u16 : DType::u32;
  view.value_type = from.value_bytes == 4 ? DType::f32 : DType::f64;
  view.shared_value = from.shared_value != 0;
  return {view, std::make_shared<MappedMatrix>(mapping, place.all, from)};
}

CacheFile::CacheFile(const std::filesystem::path& file) : state_(std::make_unique<State>(file)) {
  state_->read_header();
  state_->read_table();
}

CacheFile::~CacheFile() = default;

const std::string& CacheFile::origin() const noexcept { return state_->origin; }

const std::vector<SourceStamp>& CacheFile::sources() const noexcept { return state_->sources; }

std::int64_t CacheFile::bytes() const noexcept { return state_->header.file_bytes; }

std::vector<Csr> CacheFile::matrices(const CacheReadOptions& options) const {
  const auto count = std::ssize(state_->matrices);
  const bool release = bytes() > options.resident_limit;
  std::vector<Csr> matrices(static_cast<std::size_t>(count));
  for_each_piece(count, options.threads, [&](std::int64_t piece, std::size_t) {
    const auto index = static_cast<std::size_t>(piece);
    state_->check_matrix(index);
    matrices[index] = state_->matrix(index);
    if (release) matrices[index].storage()->release();
  });
  return matrices;
}

std::vector<Csr> read_cache(const std::filesystem::path& file, std::string* origin) {
  const CacheFile cache(file);
  auto matrices = cache.matrices({.threads = reader_threads()});
  if (origin != nullptr) *origin = cache.origin();
  return matrices;
}

}  // namespace spdnn
