// The plain form of weights on a device, and what shapes say of them.
#include <algorithm>

#include "spdnn/op.hpp"

namespace spdnn {
namespace {

/// A device copy of `bytes` host bytes, kept in `owners`.
const void* upload(const void* host, std::size_t bytes, Device& device, Stream& stream,
                   std::vector<Buffer>& owners) {
  owners.push_back(device.allocate(bytes));
  stream.copy(owners.back().data(), host, bytes);
  return owners.back().data();
}

}  // namespace

PreparedWeights upload_csr(const CsrView& host, Device& device, Stream& stream) {
  PreparedWeights prepared{host, {}, nullptr};
  if (device.info().kind == DeviceKind::cpu) return prepared;
  CsrView& view = prepared.csr;
  if (host.row_offsets != nullptr) {
    view.row_offsets = static_cast<const std::int64_t*>(
        upload(host.row_offsets, static_cast<std::size_t>(host.rows + 1) * sizeof(std::int64_t),
               device, stream, prepared.buffers));
  }
  view.col_indices =
      upload(host.col_indices, static_cast<std::size_t>(host.nnz) * size_of(host.index_type),
             device, stream, prepared.buffers);
  view.values =
      upload(host.values, static_cast<std::size_t>(host.stored_values()) * size_of(host.value_type),
             device, stream, prepared.buffers);
  return prepared;
}

SpmmShape shape_of(const CsrView& weights, std::int64_t batch, std::int64_t panel_width) {
  SpmmShape shape;
  shape.rows = weights.rows;
  shape.cols = weights.cols;
  shape.nnz = weights.nnz;
  shape.batch = batch;
  shape.panel_width = panel_width;
  shape.index_type = weights.index_type;
  shape.value_type = weights.value_type;
  shape.shared_value = weights.shared_value;
  shape.equal_rows = weights.row_offsets == nullptr;
  shape.max_row_nnz = shape.equal_rows ? weights.row_nnz : 0;
  for (std::int64_t row = 0; row < weights.rows && !shape.equal_rows; ++row) {
    shape.max_row_nnz =
        std::max(shape.max_row_nnz, weights.row_begin(row + 1) - weights.row_begin(row));
  }
  return shape;
}

}  // namespace spdnn
