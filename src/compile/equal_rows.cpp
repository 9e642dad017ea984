// A row is first compared with the one at the distance at which rows repeated last, many rows at a
// time while that goes well; only rows that differ from it are hashed.
#include "equal_rows.hpp"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace spdnn::compiler {
namespace {

/// The bytes that a row consists of.
class RowBytes {
 public:
  RowBytes(const CsrView& w, const std::vector<float>& bias)
      : w_(w), bias_(bias), col_size_(size_of(w.index_type)) {}

  [[nodiscard]] std::uint64_t hash(std::int64_t row) const {
    const std::int64_t begin = w_.row_begin(row);
    const auto length = static_cast<std::size_t>(w_.row_begin(row + 1) - begin);
    const std::uint64_t seed = std::bit_cast<std::uint32_t>(bias_[bias_.size() == 1 ? 0 : row]);
    const std::uint64_t cols = XXH3_64bits_withSeed(cols_at(begin), length * col_size_, seed);
    if (w_.shared_value) return cols;
    return XXH3_64bits_withSeed(values_at(begin), length * sizeof(float), cols);
  }

  /// Whether the `count` rows from `a` on equal those from `b` on, one by one.
  [[nodiscard]] bool equal(std::int64_t a, std::int64_t b, std::int64_t count = 1) const {
    if (bias_.size() > 1 && !same_bytes(&bias_[a], &bias_[b], count * sizeof(float))) return false;
    const std::int64_t at_a = w_.row_begin(a);
    const std::int64_t at_b = w_.row_begin(b);
    if (w_.row_offsets != nullptr) {
      for (std::int64_t i = 1; i <= count; ++i) {
        if (w_.row_begin(a + i) - at_a != w_.row_begin(b + i) - at_b) return false;
      }
    }
    const auto entries = static_cast<std::size_t>(w_.row_begin(a + count) - at_a);
    return same_bytes(cols_at(at_a), cols_at(at_b), entries * col_size_) &&
           (w_.shared_value ||
            same_bytes(values_at(at_a), values_at(at_b), entries * sizeof(float)));
  }

 private:
  static bool same_bytes(const void* a, const void* b, std::size_t bytes) {
    return bytes == 0 || std::memcmp(a, b, bytes) == 0;
  }
  [[nodiscard]] const std::byte* cols_at(std::int64_t k) const {
    return static_cast<const std::byte*>(w_.col_indices) + static_cast<std::size_t>(k) * col_size_;
  }
  [[nodiscard]] const float* values_at(std::int64_t k) const {
    return static_cast<const float*>(w_.values) + k;
  }
  const CsrView& w_;
  const std::vector<float>& bias_;
  std::size_t col_size_;
};

/// A class in the table; `mark` is a part of its rows' hash that does not choose the slot, and
/// never 0 where a slot is taken.
struct Slot {
  std::uint32_t mark = 0;
  Neuron of = 0;
};

/// Classes of the rows seen so far, in an open-addressed table by hash.
class ClassTable {
 public:
  ClassTable(const RowBytes& rows, std::size_t count, Classes& classes)
      : rows_(rows), classes_(classes), slots_(std::bit_ceil(2 * count + 1)) {}

  /// The class of a row; a new one where no row before equals it.
  [[nodiscard]] Neuron class_of(std::int64_t row) {
    const std::uint64_t hash = rows_.hash(row);
    const std::uint32_t mark = static_cast<std::uint32_t>(hash >> 32) | 1U;
    std::size_t at = hash & (slots_.size() - 1);
    while (slots_[at].mark != 0 &&
           (slots_[at].mark != mark || !rows_.equal(classes_.first[slots_[at].of], row))) {
      at = (at + 1) & (slots_.size() - 1);
    }
    if (slots_[at].mark == 0) {
      slots_[at] = {mark, static_cast<Neuron>(classes_.first.size())};
      classes_.first.push_back(static_cast<Neuron>(row));
    }
    return slots_[at].of;
  }

 private:
  const RowBytes& rows_;
  Classes& classes_;
  std::vector<Slot> slots_;
};

}  // namespace

Classes find_equal_rows(const CsrView& weights, const std::vector<float>& bias) {
  constexpr std::int64_t kMostAtOnce = 256;
  const RowBytes rows(weights, bias);
  Classes classes;
  classes.of.resize(static_cast<std::size_t>(weights.rows));
  ClassTable table(rows, classes.of.size(), classes);
  // Networks that are built of blocks repeat a row, and those after it, at one distance.
  std::int64_t distance = 0;
  std::int64_t at_once = 1;
  for (std::int64_t row = 0; row < weights.rows;) {
    const std::int64_t count = std::min(at_once, weights.rows - row);
    if (distance > 0 && rows.equal(row - distance, row, count)) {
      for (const std::int64_t end = row + count; row < end; ++row) {
        classes.of[row] = classes.of[row - distance];
      }
      at_once = std::min(2 * at_once, kMostAtOnce);
    } else if (distance > 0 && count > 1) {
      at_once = 1;
    } else {
      classes.of[row] = table.class_of(row);
      const std::int64_t first = classes.first[classes.of[row]];
      if (first != row) distance = row - first;
      ++row;
    }
  }
  return classes;
}

bool surely_distinct(const CsrView& w, const std::vector<float>& bias) {
  const auto* values = static_cast<const float*>(w.values);
  std::vector<std::int64_t> seen(static_cast<std::size_t>(w.cols), -1);  // by column: its last row
  std::vector<std::uint64_t> hashes;
  hashes.reserve(static_cast<std::size_t>(w.rows));
  const bool once = with_columns(w, [&](const auto* cols) {
    for (std::int64_t row = 0; row < w.rows; ++row) {
      std::uint64_t sum = mix(std::bit_cast<std::uint32_t>(bias[bias.size() == 1 ? 0 : row]));
      for (std::int64_t k = w.row_begin(row); k < w.row_begin(row + 1); ++k) {
        if (seen[cols[k]] == row) return false;
        seen[cols[k]] = row;
        const std::uint64_t value = w.shared_value ? 1 : std::bit_cast<std::uint32_t>(values[k]);
        sum += mix(value << 32 | cols[k]);
      }
      hashes.push_back(sum);
    }
    return true;
  });
  if (!once) return false;
  std::sort(hashes.begin(), hashes.end());
  return std::adjacent_find(hashes.begin(), hashes.end()) == hashes.end();
}

}  // namespace spdnn::compiler
