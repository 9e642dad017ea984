// The arrays of a pattern, one after another in one piece of device memory.
#include "device_pattern.hpp"

#include "host_view.hpp"

namespace spdnn::train {

DevicePattern::DevicePattern(const Pattern& pattern, Device& device, Stream& stream)
    : view_(pattern.view()) {
  if (shares_memory(device) || pattern.is_dense()) return;
  csr_bytes_ = pattern.csr_bytes();
  csc_bytes_ = pattern.csc_bytes();
  arrays_ = device.allocate(static_cast<std::size_t>(csr_bytes_ + csc_bytes_));
  auto* free = arrays_.as<std::byte>();
  const auto place = [&]<class T>(const T*& array, std::int64_t count) {
    const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
    stream.copy(free, array, bytes);
    auto* const there = reinterpret_cast<T*>(free);
    array = there;
    free += bytes;
    return there;
  };
  // The wide ones first, so that each lies where its type wants it.
  auto* const row_offsets = place(view_.row_offsets, view_.rows + 1);
  auto* const col_offsets = place(view_.col_offsets, view_.cols + 1);
  auto* const col_indices = place(view_.col_indices, view_.nnz);
  auto* const row_indices = place(view_.row_indices, view_.nnz);
  auto* const entries = place(view_.entries, view_.nnz);
  copies_ = {view_.rows,  view_.cols,  view_.nnz,   row_offsets,
             col_indices, col_offsets, row_indices, entries};
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
