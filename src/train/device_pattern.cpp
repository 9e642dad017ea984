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
    array = reinterpret_cast<const T*>(free);
    free += bytes;
  };
  // The wide ones first, so that each lies where its type wants it.
  place(view_.row_offsets, view_.rows + 1);
  place(view_.col_offsets, view_.cols + 1);
  place(view_.col_indices, view_.nnz);
  place(view_.row_indices, view_.nnz);
  place(view_.entries, view_.nnz);
}

}  // namespace spdnn::train
