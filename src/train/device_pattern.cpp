// The arrays of a pattern, one after another in one piece of device memory.
#include "device_pattern.hpp"

#include "host_view.hpp"

namespace spdnn::train {

DevicePattern::DevicePattern(const Pattern& pattern, Device& device, Stream& stream) {
  if (!shares_memory(device) && !pattern.is_dense()) {
    csr_bytes_ = pattern.csr_bytes();
    csc_bytes_ = pattern.csc_bytes();
    memory_ = device.allocate(static_cast<std::size_t>(csr_bytes_ + csc_bytes_));
    auto* free = memory_.as<std::byte>();
    const auto place = [&]<class T>(T*& array, std::int64_t count) {
      array = reinterpret_cast<T*>(free);
      free += static_cast<std::size_t>(count) * sizeof(T);
    };
    copies_.rows = pattern.rows();
    copies_.cols = pattern.cols();
    copies_.nnz = pattern.nnz();
    // The wide ones first, so that each lies where its type wants it.
    place(copies_.row_offsets, copies_.rows + 1);
    place(copies_.col_offsets, copies_.cols + 1);
    place(copies_.col_indices, copies_.nnz);
    place(copies_.row_indices, copies_.nnz);
    place(copies_.entries, copies_.nnz);
  }
  store(pattern, stream);
}

void DevicePattern::store(const Pattern& pattern, Stream& stream) {
  view_ = pattern.view();
  if (copies_.row_offsets == nullptr) return;
  const auto copy = [&]<class T>(T* there, const T*& array, std::int64_t count) {
    stream.copy(there, array, static_cast<std::size_t>(count) * sizeof(T));
    array = there;
  };
  copy(copies_.row_offsets, view_.row_offsets, view_.rows + 1);
  copy(copies_.col_offsets, view_.col_offsets, view_.cols + 1);
  copy(copies_.col_indices, view_.col_indices, view_.nnz);
  copy(copies_.row_indices, view_.row_indices, view_.nnz);
  copy(copies_.entries, view_.entries, view_.nnz);
}

void DevicePattern::fetch(Pattern& pattern, Stream& stream) const {
  std::vector<std::int64_t> row_offsets(static_cast<std::size_t>(view_.rows + 1));
  std::vector<std::uint32_t> col_indices(static_cast<std::size_t>(view_.nnz));
  stream.copy(row_offsets.data(), view_.row_offsets, row_offsets.size() * sizeof(std::int64_t));
  stream.copy(col_indices.data(), view_.col_indices, col_indices.size() * sizeof(std::uint32_t));
  stream.synchronize();
  pattern.recall(std::move(row_offsets), std::move(col_indices));
}

}  // namespace spdnn::train
