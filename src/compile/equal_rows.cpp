// An open-addressed table of rows by hash, without an allocation a row.
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
    const std::uint64_t seed = std::bit_cast<std::uint32_t>(bias(row));
    const std::uint64_t cols = XXH3_64bits_withSeed(cols_at(begin), length * col_size_, seed);
    if (w_.shared_value) return cols;
    return XXH3_64bits_withSeed(values_at(begin), length * sizeof(float), cols);
  }

  [[nodiscard]] bool equal(std::int64_t a, std::int64_t b) const {
    const std::int64_t at_a = w_.row_begin(a);
    const std::int64_t at_b = w_.row_begin(b);
    const std::int64_t length = w_.row_begin(a + 1) - at_a;
    if (length != w_.row_begin(b + 1) - at_b) return false;
    if (std::bit_cast<std::uint32_t>(bias(a)) != std::bit_cast<std::uint32_t>(bias(b)))
      return false;
    if (length == 0) return true;
    const auto entries = static_cast<std::size_t>(length);
    return std::memcmp(cols_at(at_a), cols_at(at_b), entries * col_size_) == 0 &&
           (w_.shared_value ||
            std::memcmp(values_at(at_a), values_at(at_b), entries * sizeof(float)) == 0);
  }

 private:
  [[nodiscard]] float bias(std::int64_t row) const { return bias_[bias_.size() == 1 ? 0 : row]; }
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

/// Spreads 64 bits over 64 bits (the finaliser of MurmurHash3).
std::uint64_t mix(std::uint64_t bits) {
  bits = (bits ^ (bits >> 33)) * 0xFF51AFD7ED558CCDU;
  bits = (bits ^ (bits >> 33)) * 0xC4CEB9FE1A85EC53U;
  return bits ^ (bits >> 33);
}

}  // namespace

Classes find_equal_rows(const CsrView& weights, const std::vector<float>& bias) {
  const RowBytes rows(weights, bias);
  const auto count = static_cast<std::size_t>(weights.rows);
  std::vector<Slot> table(std::bit_ceil(2 * count + 1));
  Classes classes;
  classes.of.resize(count);
  for (std::size_t row = 0; row < count; ++row) {
    const std::uint64_t hash = rows.hash(static_cast<std::int64_t>(row));
    const std::uint32_t mark = static_cast<std::uint32_t>(hash >> 32) | 1U;
    std::size_t at = hash & (table.size() - 1);
    while (table[at].mark != 0 &&
           (table[at].mark != mark ||
            !rows.equal(classes.first[table[at].of], static_cast<std::int64_t>(row)))) {
      at = (at + 1) & (table.size() - 1);
    }
    if (table[at].mark == 0) {
      table[at] = {mark, static_cast<Neuron>(classes.first.size())};
      classes.first.push_back(static_cast<Neuron>(row));
    }
    classes.of[row] = table[at].of;
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
