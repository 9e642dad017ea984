// CSR matrices built in place by the generators: columns of their final width, one shared value.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "spdnn/matrix.hpp"

namespace spdnn {

/// Most columns whose indices fit 16 bits.
inline constexpr std::int64_t kNarrowColumns = 65536;

/// Arrays of a matrix with columns of type `Index` and one value for all entries. The columns are
/// left unset when made, so that their pages are first touched by whoever fills them.
template <class Index>
struct OwnedCsr final : Storage {
  OwnedCsr(std::int64_t nnz, float shared)
      : col_indices(new Index[static_cast<std::size_t>(nnz)]), value(shared) {}

  std::vector<std::int64_t> row_offsets;  ///< empty when rows are equally long
  std::unique_ptr<Index[]> col_indices;
  float value;
};

/// Wraps filled arrays of `rows` × `cols`, `nnz` entries, as a `Csr`.
template <class Index>
Csr wrap_csr(std::int64_t rows, std::int64_t cols, std::int64_t nnz,
             std::shared_ptr<OwnedCsr<Index>> arrays) {
  CsrView view;
  view.rows = rows;
  view.cols = cols;
  view.nnz = nnz;
  if (arrays->row_offsets.empty()) {
    view.row_nnz = rows > 0 ? nnz / rows : 0;
  } else {
    view.row_offsets = arrays->row_offsets.data();
  }
  view.col_indices = arrays->col_indices.get();
  view.index_type = dtype_of<Index>;
  view.values = &arrays->value;
  view.shared_value = nnz > 0;
  return {view, std::move(arrays)};
}

/// Whether all rows are equally long, so that `row_offsets` (rows + 1) can be dropped.
inline bool equally_long_rows(const std::vector<std::int64_t>& row_offsets) {
  return std::adjacent_find(row_offsets.begin(), row_offsets.end(),
                            [&](std::int64_t begin, std::int64_t end) {
                              return end - begin != row_offsets[1] - row_offsets[0];
                            }) == row_offsets.end();
}

}  // namespace spdnn
