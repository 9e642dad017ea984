// Columns are marked in a bitmap under a bitmap, which gives them back in ascending order without a
// sort, and without a branch that depends on the columns.
#include "row_merger.hpp"

#include <bit>
#include <cmath>

namespace spdnn::compiler {
namespace {

constexpr std::int64_t kWord = 64;

std::size_t words_for(std::size_t bits) { return (bits + kWord - 1) / kWord; }

/// Writes the positions of a word's bits to `out`, ascending, and returns how many there are. Words
/// with few bits take no branch that depends on how many; up to `kAtOnce` places past the last
/// position are written over.
constexpr std::int64_t kAtOnce = 4;
std::int64_t list_bits(std::uint64_t word, std::size_t first, Neuron* out) {
  std::int64_t count = 0;
  do {
    for (std::int64_t i = 0; i < kAtOnce; ++i) {
      out[count] = static_cast<Neuron>(first + static_cast<std::size_t>(std::countr_zero(word)));
      count += word != 0 ? 1 : 0;
      word &= word - 1;
    }
  } while (word != 0);
  return count;
}

}  // namespace

RowMerger::RowMerger(std::int64_t cols)
    : there_(static_cast<std::size_t>(cols)),
      sums_(there_.size()),
      columns_(words_for(there_.size())),
      occupied_(words_for(columns_.size())),
      words_(columns_.size() + kAtOnce),
      found_(there_.size() + kAtOnce) {}

template <class Column>
void RowMerger::mark(std::int64_t begin, std::int64_t end, const Column& column_of) {
  const bool narrow = occupied_.size() == 1;
  std::uint64_t occupied = 0;  // in a register, where one word is enough
  for (std::int64_t k = begin; k < end; ++k) {
    const std::size_t col = column_of(k);
    const std::size_t word = col / kWord;
    const std::uint64_t bit = std::uint64_t{1} << (word % kWord);
    ++there_[col];
    columns_[word] |= std::uint64_t{1} << (col % kWord);
    if (narrow) {
      occupied |= bit;
    } else {
      occupied_[word / kWord] |= bit;
    }
  }
  if (narrow) occupied_.front() = occupied;
}

void RowMerger::add_row(const CsrView& w, std::int64_t row, const std::vector<Neuron>& to,
                        LayerBuilder& out) {
  const std::int64_t begin = w.row_begin(row);
  const std::int64_t end = w.row_begin(row + 1);
  const auto* values = static_cast<const float*>(w.values);
  with_columns(w, [&](const auto* cols) {
    const auto sum_up = [&](const auto& column_of) {
      mark(begin, end, column_of);
      if (w.shared_value) return;
      for (std::int64_t k = begin; k < end; ++k) {
        sums_[column_of(k)] += static_cast<double>(values[k]);
      }
    };
    if (to.empty()) {
      sum_up([&](std::int64_t k) { return static_cast<std::size_t>(cols[k]); });
    } else {
      sum_up([&](std::int64_t k) { return static_cast<std::size_t>(to[cols[k]]); });
    }
  });
  const std::int64_t count = list_columns();
  const double shared = w.shared_value ? static_cast<double>(*values) : 0.0;
  const LayerBuilder::Entries entries = out.grow(count);
  std::int64_t kept = 0;
  bool finite = true;
  for (std::int64_t i = 0; i < count; ++i) {
    const Neuron col = found_[i];
    const auto value = static_cast<float>(w.shared_value ? shared * there_[col] : sums_[col]);
    entries.cols[kept] = col;
    entries.values[kept] = value;
    finite = finite && (std::isfinite(value) || there_[col] == 1);
    kept += value != 0.0F || there_[col] == 1 ? 1 : 0;
    there_[col] = 0;
    sums_[col] = 0.0;
  }
  out.cut(count - kept);
  if (!finite) throw OutOfRange{};
}

std::int64_t RowMerger::list_columns() {
  std::int64_t count = 0;
  for (std::size_t group = 0; group < occupied_.size(); ++group) {
    const std::int64_t words = list_bits(occupied_[group], group * kWord, words_.data());
    occupied_[group] = 0;
    for (std::int64_t i = 0; i < words; ++i) {
      const Neuron word = words_[i];
      count += list_bits(columns_[word], word * kWord, found_.data() + count);
      columns_[word] = 0;
    }
  }
  return count;
}

}  // namespace spdnn::compiler
