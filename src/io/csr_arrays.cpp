// Arrays of a file are converted element by element, and what can't be is named with its place.
#include "csr_arrays.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "network_format.hpp"
#include "safetensors.hpp"
#include "tsv_line.hpp"

namespace spdnn {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& file, const Tensor& array, const std::string& what) {
  throw InputError(file, fmt::format("{}: {}", quote(array.name), what));
}

/// IEEE binary16 to binary32 (exact).
float float_of_half(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16U;
  const std::uint32_t exponent = half >> 10U & 0x1FU;
  const std::uint32_t fraction = half & 0x3FFU;
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(fraction), -24);
    return sign == 0 ? magnitude : -magnitude;
  }
  const std::uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23U | fraction << 13U);
}

float float_of_bfloat(std::uint16_t bits) {
  return std::bit_cast<float>(std::uint32_t{bits} << 16U);
}

template <class T>
std::span<const T> elements(const Tensor& array) {
  return {reinterpret_cast<const T*>(array.data.data()), array.data.size() / sizeof(T)};
}

/// Calls `use(k, value)` for each element of an array of whole numbers.
template <class Use>
void for_each_integer(const fs::path& file, const Tensor& array, const Use& use) {
  const auto all = [&]<class T>(std::span<const T> values) {
    for (std::size_t k = 0; k < values.size(); ++k) use(k, values[k]);
  };
  if (array.shape.size() != 1) {
    fail(file, array,
         fmt::format("has the shape {}, but must have one dimension", shape_text(array.shape)));
  }
  switch (array.type) {
    case ElementType::i16: return all(elements<std::int16_t>(array));
    case ElementType::u16: return all(elements<std::uint16_t>(array));
    case ElementType::i32: return all(elements<std::int32_t>(array));
    case ElementType::u32: return all(elements<std::uint32_t>(array));
    case ElementType::i64: return all(elements<std::int64_t>(array));
    case ElementType::u64: return all(elements<std::uint64_t>(array));
    default:
      fail(file, array,
           fmt::format("is of type {}, but must be whole numbers of 16 to 64 bits, such "
                       "as I32 or I64",
                       name_of(array.type)));
  }
}

/// Calls `use(k, value)` for each element of an array of numbers, as a float or what converts to
/// one.
template <class Use>
void for_each_number(const fs::path& file, const Tensor& array, const Use& use) {
  const auto all = [&]<class T>(std::span<const T> values) {
    for (std::size_t k = 0; k < values.size(); ++k) use(k, static_cast<float>(values[k]));
  };
  const auto bits = elements<std::uint16_t>(array);
  switch (array.type) {
    case ElementType::f16:
      for (std::size_t k = 0; k < bits.size(); ++k) use(k, float_of_half(bits[k]));
      return;
    case ElementType::bf16:
      for (std::size_t k = 0; k < bits.size(); ++k) use(k, float_of_bfloat(bits[k]));
      return;
    case ElementType::f32: return all(elements<float>(array));
    case ElementType::f64: return all(elements<double>(array));
    case ElementType::i8: return all(elements<std::int8_t>(array));
    case ElementType::u8:
    case ElementType::boolean: return all(elements<std::uint8_t>(array));
    default:
      return for_each_integer(
          file, array, [&](std::size_t k, auto value) { use(k, static_cast<float>(value)); });
  }
}

std::vector<std::int64_t> read_offsets(const fs::path& file, const Tensor& array,
                                       std::int64_t nnz) {
  std::vector<std::int64_t> offsets;
  offsets.reserve(array.data.size() / size_of(array.type));
  for_each_integer(file, array, [&](std::size_t k, auto value) {
    const std::int64_t least = k == 0 ? 0 : offsets.back();
    const std::int64_t most = k == 0 ? 0 : nnz;
    if (std::cmp_less(value, least) || std::cmp_greater(value, most)) {
      fail(
          file, array,
          fmt::format("element {} is {}; row offsets begin with 0, never decrease and end with the "
                      "{} entries, so it must be from {} to {}",
                      k, value, nnz, least, most));
    }
    offsets.push_back(static_cast<std::int64_t>(value));
  });
  if (offsets.empty()) fail(file, array, "is empty; row offsets have one element more than rows");
  if (offsets.back() != nnz) {
    fail(file, array, fmt::format("ends with {}, but there are {} entries", offsets.back(), nnz));
  }
  return offsets;
}

void check_repetition(const fs::path& file, const Tensor& array,
                      const std::vector<std::int64_t>& offsets,
                      const std::vector<std::uint32_t>& cols) {
  std::vector<std::uint32_t> row_cols;
  for (std::size_t row = 0; row + 1 < offsets.size(); ++row) {
    row_cols.assign(cols.begin() + offsets[row], cols.begin() + offsets[row + 1]);
    std::sort(row_cols.begin(), row_cols.end());
    const auto found = std::adjacent_find(row_cols.begin(), row_cols.end());
    if (found != row_cols.end()) {
      fail(file, array,
           fmt::format("column {} stands twice in row {}; add the two up (SciPy: "
                       "sum_duplicates) or remove one",
                       *found, row));
    }
  }
}

}  // namespace

std::vector<float> finite_floats(const fs::path& file, const Tensor& values) {
  if (values.shape.size() != 1) {
    fail(file, values,
         fmt::format("has the shape {}, but must have one dimension", shape_text(values.shape)));
  }
  std::vector<float> result;
  result.reserve(values.data.size() / size_of(values.type));
  for_each_number(file, values, [&](std::size_t k, float value) {
    if (!std::isfinite(value)) {
      fail(file, values,
           fmt::format("element {} is {} as a 32-bit float; values must be finite, "
                       "within ±3.4e38",
                       k, value));
    }
    result.push_back(value);
  });
  return result;
}

Csr csr_of_arrays(const fs::path& file, const Tensor& row_offsets, const Tensor& col_indices,
                  const Tensor& values, std::optional<std::int64_t> rows, std::int64_t cols) {
  if (cols < 0 || cols > kMaxNeurons) {
    throw InputError(file, fmt::format("{} columns; there must be 0 to {}", cols, kMaxNeurons));
  }
  std::vector<std::uint32_t> indices;
  indices.reserve(col_indices.data.size() / size_of(col_indices.type));
  for_each_integer(file, col_indices, [&](std::size_t k, auto value) {
    if (std::cmp_less(value, 0) || std::cmp_greater_equal(value, cols)) {
      fail(file, col_indices,
           fmt::format("element {} is {}; a column must be from 0 to {}", k, value, cols - 1));
    }
    indices.push_back(static_cast<std::uint32_t>(value));
  });
  std::vector<std::int64_t> offsets = read_offsets(file, row_offsets, std::ssize(indices));
  const auto offset_rows = std::ssize(offsets) - 1;
  if (offset_rows > kMaxNeurons || (rows && *rows != offset_rows)) {
    fail(file, row_offsets,
         fmt::format("has {} elements, but {} rows need {}", offsets.size(),
                     rows.value_or(kMaxNeurons), rows.value_or(kMaxNeurons) + 1));
  }
  check_repetition(file, col_indices, offsets, indices);
  std::vector<float> numbers = finite_floats(file, values);
  if (numbers.size() != indices.size()) {
    fail(file, values,
         fmt::format("has {} elements, but there are {} columns", numbers.size(), indices.size()));
  }
  return make_csr(offset_rows, cols, std::move(offsets), std::move(indices), std::move(numbers));
}

Csr csr_of_entries(const fs::path& file, std::int64_t rows, std::int64_t cols,
                   const std::vector<Entry>& entries, std::int64_t first_line) {
  std::vector<std::int64_t> offsets(static_cast<std::size_t>(rows) + 1, 0);
  for (const Entry& entry : entries) ++offsets[std::size_t{entry.row} + 1];
  for (std::size_t row = 1; row < offsets.size(); ++row) offsets[row] += offsets[row - 1];
  std::vector<std::int64_t> order(entries.size());
  std::vector<std::int64_t> next(offsets.begin(), offsets.end() - 1);
  for (std::size_t k = 0; k < entries.size(); ++k) {
    order[static_cast<std::size_t>(next[entries[k].row]++)] = static_cast<std::int64_t>(k);
  }
  const auto entry_at = [&](std::int64_t k) -> const Entry& {
    return entries[static_cast<std::size_t>(k)];
  };
  const auto before = [&](std::int64_t a, std::int64_t b) {
    return std::pair(entry_at(a).col, a) < std::pair(entry_at(b).col, b);
  };
  for (std::size_t row = 0; row + 1 < offsets.size(); ++row) {
    const auto begin = order.begin() + offsets[row];
    const auto end = order.begin() + offsets[row + 1];
    if (!std::is_sorted(begin, end, before)) std::sort(begin, end, before);
    const auto twice = std::adjacent_find(begin, end, [&](std::int64_t a, std::int64_t b) {
      return entry_at(a).col == entry_at(b).col;
    });
    if (twice != end) {
      throw InputError(file, first_line + twice[1],
                       fmt::format("duplicate entry: row {}, column {} stands in line {} already; "
                                   "keep one of the two",
                                   row + 1, entry_at(*twice).col + 1, first_line + *twice));
    }
  }
  std::vector<std::uint32_t> indices(entries.size());
  std::vector<float> values(entries.size());
  for (std::size_t k = 0; k < entries.size(); ++k) {
    indices[k] = entry_at(order[k]).col;
    values[k] = entry_at(order[k]).value;
  }
  return make_csr(rows, cols, std::move(offsets), std::move(indices), std::move(values));
}

Csr with_shape(const Csr& matrix, std::int64_t rows, std::int64_t cols) {
  const CsrView& view = matrix.view();
  if (view.rows == rows && view.cols == cols) return matrix;
  std::vector<std::int64_t> offsets(static_cast<std::size_t>(rows) + 1, view.nnz);
  for (std::int64_t row = 0; row < view.rows; ++row) {
    offsets[static_cast<std::size_t>(row)] = view.row_begin(row);
  }
  std::vector<std::uint32_t> indices(static_cast<std::size_t>(view.nnz));
  for (std::size_t k = 0; k < indices.size(); ++k) {
    indices[k] = static_cast<std::uint32_t>(view.col(static_cast<std::int64_t>(k)));
  }
  std::vector<float> values(static_cast<std::size_t>(view.stored_values()));
  for (std::size_t k = 0; k < values.size(); ++k) {
    values[k] = static_cast<float>(view.value(static_cast<std::int64_t>(k)));
  }
  return make_csr(rows, cols, std::move(offsets), std::move(indices), std::move(values));
}

std::string shape_text(const Csr& matrix) {
  return fmt::format("{} × {}", matrix.rows(), matrix.cols());
}

}  // namespace spdnn
