// Sparse matrices (CSR) and blocks of activations (panels): the data every kernel reads and writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "spdnn/error.hpp"

#if defined(__CUDACC__)
#define SPDNN_HOST_DEVICE __host__ __device__
#else
#define SPDNN_HOST_DEVICE
#endif

namespace spdnn {

/// Element types of arrays.
enum class DType : std::uint8_t { f32, f64, u8, u16, u32, i32, i64 };

/// Bytes one element of `type` takes.
[[nodiscard]] constexpr std::size_t size_of(DType type) noexcept {
  switch (type) {
    case DType::u8: return 1;
    case DType::u16: return 2;
    case DType::f32:
    case DType::u32:
    case DType::i32: return 4;
    case DType::f64:
    case DType::i64: return 8;
  }
  return 0;
}

/// The `DType` of a C++ type.
template <class T>
inline constexpr DType dtype_of = DType::f32;
template <>
inline constexpr DType dtype_of<double> = DType::f64;
template <>
inline constexpr DType dtype_of<std::uint8_t> = DType::u8;
template <>
inline constexpr DType dtype_of<std::uint16_t> = DType::u16;
template <>
inline constexpr DType dtype_of<std::uint32_t> = DType::u32;
template <>
inline constexpr DType dtype_of<std::int32_t> = DType::i32;
template <>
inline constexpr DType dtype_of<std::int64_t> = DType::i64;

/// A half-open range of images, rows or layers.
struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  [[nodiscard]] constexpr std::int64_t size() const noexcept { return end - begin; }
  friend constexpr bool operator==(const Range&, const Range&) = default;
};

/// A CSR matrix `[rows × cols]` as kernels see it: pointers, host or device, that it does not own.
///
/// Three redundancies are found in the data and stored once, so that a kernel can exploit them:
/// all rows equally long (`row_offsets == nullptr`), all values equal (`shared_value`), and columns
/// that fit 16 bits (`index_type`).
///
/// `col_indices` and `values` point at the first entry of row 0; row r holds the entries
/// `[row_offsets[r] - row_offsets[0], row_offsets[r + 1] - row_offsets[0])`, so that a slice of
/// rows is a view as well. The order of a row's entries is the order of its sum (canonical order).
struct CsrView {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t nnz = 0;
  const std::int64_t* row_offsets = nullptr;  ///< rows + 1 of them; null when rows are equally long
  std::int64_t row_nnz = 0;                   ///< entries of every row when `row_offsets` is null
  const void* col_indices = nullptr;          ///< nnz of `index_type`
  const void* values = nullptr;               ///< nnz of `value_type`, or one when `shared_value`
  DType index_type = DType::u32;              ///< u16 or u32
  DType value_type = DType::f32;              ///< f32 or f64
  bool shared_value = false;

  /// Index of row r's first entry, counted from row 0's first; `row_begin(rows)` is `nnz`.
  [[nodiscard]] SPDNN_HOST_DEVICE std::int64_t row_begin(std::int64_t row) const {
    return row_offsets == nullptr ? row * row_nnz : row_offsets[row] - row_offsets[0];
  }
  /// Column of entry k. For loops that are not hot; kernels read the typed array.
  [[nodiscard]] std::int64_t col(std::int64_t k) const {
    return index_type == DType::u16 ? static_cast<const std::uint16_t*>(col_indices)[k]
                                    : static_cast<const std::uint32_t*>(col_indices)[k];
  }
  /// Value of entry k. For loops that are not hot; kernels read the typed array.
  [[nodiscard]] double value(std::int64_t k) const {
    const std::int64_t at = shared_value ? 0 : k;
    return value_type == DType::f64 ? static_cast<const double*>(values)[at]
                                    : static_cast<double>(static_cast<const float*>(values)[at]);
  }
  /// Entries stored in the `values` array.
  [[nodiscard]] std::int64_t stored_values() const { return shared_value ? (nnz > 0) : nnz; }
  /// Bytes of the three arrays together.
  [[nodiscard]] std::int64_t bytes() const;
  /// The rows `[range.begin, range.end)` as a view of the same arrays (host pointers only).
  [[nodiscard]] CsrView slice_rows(Range range) const;
};

/// What keeps a matrix's arrays alive: heap memory, or a part of a mapped cache file.
class Storage {
 public:
  Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  virtual ~Storage() = default;
  /// Asks for the arrays' pages ahead of use. Only a hint; thread-safe.
  virtual void prefetch() const {}
  /// Lets the system take the arrays' pages back; they are read again on the next use. Thread-safe.
  virtual void release() const {}
  /// A hash of all that `view`, a matrix kept alive by this, consists of; nothing where that is not
  /// known without reading it.
  [[nodiscard]] virtual std::optional<std::uint64_t> fingerprint(const CsrView& /*view*/) const {
    return std::nullopt;
  }
};

/// An immutable CSR matrix in host memory, cheap to copy: a view and what keeps its arrays alive.
class Csr {
 public:
  Csr() = default;
  Csr(CsrView view, std::shared_ptr<const Storage> storage)
      : view_(view), storage_(std::move(storage)) {}
  [[nodiscard]] const CsrView& view() const noexcept { return view_; }
  [[nodiscard]] const Storage* storage() const noexcept { return storage_.get(); }
  [[nodiscard]] std::int64_t rows() const noexcept { return view_.rows; }
  [[nodiscard]] std::int64_t cols() const noexcept { return view_.cols; }
  [[nodiscard]] std::int64_t nnz() const noexcept { return view_.nnz; }
  /// The rows of `range`, sharing this matrix's arrays.
  [[nodiscard]] Csr slice_rows(Range range) const { return {view_.slice_rows(range), storage_}; }

 private:
  CsrView view_;
  std::shared_ptr<const Storage> storage_;
};

/// Builds a `Csr` from plain arrays, in the smallest form the data allow (see `CsrView`).
///
/// `row_offsets` has rows + 1 entries from 0 to nnz; `col_indices` are below `cols`; `values` has
/// nnz entries, or one that all share. The order of entries is kept. Throws `InputError` when the
/// arrays contradict one another.
[[nodiscard]] Csr make_csr(std::int64_t rows, std::int64_t cols,
                           std::vector<std::int64_t> row_offsets,
                           std::vector<std::uint32_t> col_indices, std::vector<float> values);

/// The rows `ids` (each below `matrix.rows()`, any order, repeats allowed) as a matrix of its own.
[[nodiscard]] Csr gather_rows(const Csr& matrix, const std::vector<std::int64_t>& ids);

/// Activations of a batch of images, features × batch, stored as panels of `width` images:
/// `[ceil(batch / width)][features][width]`. The last panel is stored whole; what its unused lanes
/// hold is unspecified. `width == batch` is the plain row-major matrix.
template <class T>
struct Panels {
  T* data = nullptr;
  std::int64_t features = 0;
  std::int64_t batch = 0;  ///< images, or an upper bound when `live` is given
  std::int64_t width = 1;
  /// Images really there, in memory of the device, where the host knows only the bound `batch`;
  /// null where `batch` is exact. Kernels leave panels past it untouched.
  const std::int32_t* live = nullptr;

  [[nodiscard]] SPDNN_HOST_DEVICE std::int64_t count() const { return (batch + width - 1) / width; }
  [[nodiscard]] SPDNN_HOST_DEVICE T* panel(std::int64_t p) const {
    return data + p * features * width;
  }
  [[nodiscard]] SPDNN_HOST_DEVICE T& at(std::int64_t feature, std::int64_t image) const {
    return panel(image / width)[feature * width + image % width];
  }
  /// Elements of the storage.
  [[nodiscard]] std::int64_t size() const { return count() * features * width; }
  operator Panels<const T>() const { return {data, features, batch, width, live}; }  // NOLINT
};

}  // namespace spdnn
