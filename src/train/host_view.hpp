// What the host sees of numbers in a device's memory: the memory itself on the CPU, else a copy.
#pragma once

#include <cstdint>
#include <vector>

#include "spdnn/device.hpp"

namespace spdnn::train {

/// Whether the host and the kernels of a device read and write the same memory.
[[nodiscard]] inline bool shares_memory(const Device& device) {
  return device.info().kind == DeviceKind::cpu;
}

/// `count` numbers of a device for the host to read, as they are after all that its stream was
/// given before. Costs no memory where the device is the CPU.
template <class T>
class HostView {
 public:
  HostView(const T* data, std::int64_t count, const Device& device, Stream& stream) : data_(data) {
    if (shares_memory(device)) return;
    copy_.resize(static_cast<std::size_t>(count));
    stream.copy(copy_.data(), data, copy_.size() * sizeof(T));
    stream.synchronize();
    data_ = copy_.data();
  }
  HostView(const HostView&) = delete;
  HostView& operator=(const HostView&) = delete;
  [[nodiscard]] const T* data() const noexcept { return data_; }

 private:
  const T* data_;
  std::vector<T> copy_;
};

/// Room for the host to write `count` numbers of a device, which `store` brings there.
template <class T>
class HostDraft {
 public:
  HostDraft(T* to, std::int64_t count, const Device& device, Stream& stream)
      : to_(to), stream_(stream), copy_(shares_memory(device) ? 0 : count) {}
  HostDraft(const HostDraft&) = delete;
  HostDraft& operator=(const HostDraft&) = delete;
  [[nodiscard]] T* data() noexcept { return copy_.empty() ? to_ : copy_.data(); }
  /// Returns when the numbers are there.
  void store() {
    if (copy_.empty()) return;
    stream_.copy(to_, copy_.data(), copy_.size() * sizeof(T));
    stream_.synchronize();
  }

 private:
  T* to_;
  Stream& stream_;
  std::vector<T> copy_;
};

}  // namespace spdnn::train
