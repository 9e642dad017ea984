// CSR matrices from three arrays of a file, whatever types they have there.
#pragma once

#include <filesystem>
#include <optional>

#include "spdnn/io.hpp"

namespace spdnn {

/// A matrix `[rows × cols]` of the arrays of a file; rows are those of `row_offsets` where not
/// given. Throws `InputError` naming array, index, value and limit where they contradict one
/// another, a column stands twice in a row, or a value is not finite as a 32-bit float.
[[nodiscard]] Csr csr_of_arrays(const std::filesystem::path& file, const Tensor& row_offsets,
                                const Tensor& col_indices, const Tensor& values,
                                std::optional<std::int64_t> rows, std::int64_t cols);

/// A one-dimensional array of numbers as 32-bit floats, all finite.
[[nodiscard]] std::vector<float> finite_floats(const std::filesystem::path& file,
                                               const Tensor& values);

/// A matrix of entries in any order, which are sorted by row and column. `place(k)` names the line
/// of entry k for the error where two stand at the same place.
struct Entry {
  std::uint32_t row = 0, col = 0;
  float value = 0.0F;
};
[[nodiscard]] Csr csr_of_entries(const std::filesystem::path& file, std::int64_t rows,
                                 std::int64_t cols, const std::vector<Entry>& entries,
                                 std::int64_t first_line);

}  // namespace spdnn
