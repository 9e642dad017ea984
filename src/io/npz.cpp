// SciPy's sparse matrices (scipy.sparse.save_npz): an archive of the arrays of a CSR matrix.
#include <fmt/format.h>

#include <limits>

#include "csr_arrays.hpp"
#include "network_format.hpp"
#include "npy.hpp"
#include "tsv_line.hpp"
#include "zip.hpp"

namespace spdnn {
namespace {

template <class Index>
void write_matrix(ZipWriter& zip, const CsrView& matrix, std::string_view index_descr) {
  const auto add = [&](const char* name, std::string_view descr,
                       std::initializer_list<std::int64_t> shape, std::span<const std::byte> data) {
    const std::string header = npy_header(descr, {shape.begin(), shape.size()});
    zip.add(name, {std::as_bytes(std::span(header)), data});
  };
  {
    std::vector<Index> indices(static_cast<std::size_t>(matrix.nnz));
    for (std::size_t k = 0; k < indices.size(); ++k) {
      indices[k] = static_cast<Index>(matrix.col(static_cast<std::int64_t>(k)));
    }
    add("indices.npy", index_descr, {matrix.nnz}, std::as_bytes(std::span(indices)));
  }
  {
    std::vector<Index> offsets(static_cast<std::size_t>(matrix.rows) + 1);
    for (std::size_t row = 0; row < offsets.size(); ++row) {
      offsets[row] = static_cast<Index>(matrix.row_begin(static_cast<std::int64_t>(row)));
    }
    add("indptr.npy", index_descr, {matrix.rows + 1}, std::as_bytes(std::span(offsets)));
  }
  const std::string format = "csr";
  add("format.npy", "|S3", {}, std::as_bytes(std::span(format)));
  const std::vector<std::int64_t> shape{matrix.rows, matrix.cols};
  add("shape.npy", "<i8", {2}, std::as_bytes(std::span(shape)));
  std::vector<float> values(static_cast<std::size_t>(matrix.nnz));
  for (std::size_t k = 0; k < values.size(); ++k) {
    values[k] = static_cast<float>(matrix.value(static_cast<std::int64_t>(k)));
  }
  add("data.npy", "<f4", {matrix.nnz}, std::as_bytes(std::span(values)));
}

/// Rows and columns.
std::pair<std::int64_t, std::int64_t> read_shape(const std::filesystem::path& file,
                                                 const NpyArray& array) {
  const Tensor& tensor = array.tensor;
  if (array.is_text || tensor.shape != std::vector<std::int64_t>{2} ||
      (tensor.type != ElementType::i64 && tensor.type != ElementType::i32)) {
    throw InputError(file, "\"shape.npy\" must be two whole numbers of 32 or 64 bits");
  }
  const auto size = [&](std::size_t at) {
    return tensor.type == ElementType::i64
               ? reinterpret_cast<const std::int64_t*>(tensor.data.data())[at]
               : reinterpret_cast<const std::int32_t*>(tensor.data.data())[at];
  };
  const std::pair shape{size(0), size(1)};
  if (std::min(shape.first, shape.second) < 0 ||
      std::max(shape.first, shape.second) > kMaxNeurons) {
    throw InputError(file, fmt::format("\"shape.npy\" is {} × {}; each must be from 0 to {}",
                                       shape.first, shape.second, kMaxNeurons));
  }
  return shape;
}

}  // namespace

Csr read_npz(const std::filesystem::path& file) {
  const ZipFile zip(file);
  /// A member and its bytes, moved so that the data are aligned.
  struct Member {
    std::vector<std::byte> bytes, data;
    NpyArray array;
  };
  const auto read = [&](const std::string& name) {
    Member member;
    member.bytes = zip.read(name);
    member.array = read_npy(file, name, member.bytes);
    member.data.assign(member.array.tensor.data.begin(), member.array.tensor.data.end());
    member.array.tensor.data = member.data;
    member.bytes = {};
    return member;
  };
  const std::string format = read("format.npy").array.text;
  if (format != "csr") {
    throw InputError(file, fmt::format("holds a sparse matrix in the format {}, but csr is needed; "
                                       "save matrix.tocsr()",
                                       quote(format)));
  }
  const Member shape = read("shape.npy");
  const auto [rows, cols] = read_shape(file, shape.array);
  const Member offsets = read("indptr.npy");
  const Member indices = read("indices.npy");
  const Member values = read("data.npy");
  for (const Member* member : {&offsets, &indices, &values}) {
    if (member->array.is_text) {
      throw InputError(
          file, fmt::format("{} is a text, but must be numbers", quote(member->array.tensor.name)));
    }
  }
  return csr_of_arrays(file, offsets.array.tensor, indices.array.tensor, values.array.tensor, rows,
                       cols);
}

void write_npz(const std::filesystem::path& file, const CsrView& matrix) {
  ZipWriter zip(file);
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (matrix.nnz <= kMost && matrix.cols <= kMost) {
    write_matrix<std::int32_t>(zip, matrix, "<i4");
  } else {
    write_matrix<std::int64_t>(zip, matrix, "<i8");
  }
  zip.commit();
}

}  // namespace spdnn
