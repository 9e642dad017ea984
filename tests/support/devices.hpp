// The devices kernels are tested on: CPU ranks of one and of three threads, and every GPU here, or
// where tests are built for the SIMT layer, that alone.
#pragma once

#include <vector>

#include "spdnn/op.hpp"

namespace spdnn::test {

inline std::vector<DeviceSpec> tested_devices() {
#if defined(SPDNN_ON_SIMT)
  std::vector<DeviceSpec> specs;
#else
  std::vector<DeviceSpec> specs(2);
  specs[1].threads = 3;
#endif
  for (const DeviceInfo& device : list_devices()) {
    if (device.kind != DeviceKind::cuda) continue;
    DeviceSpec spec;
    spec.kind = DeviceKind::cuda;
    spec.index = device.index;
    specs.push_back(spec);
  }
  return specs;
}

/// Device memory filled from, and read back to, a host vector.
template <class T>
class DeviceArray {
 public:
  DeviceArray(const std::vector<T>& host, Device& device, Stream& stream)
      : size_(host.size()), buffer_(device.allocate(host.size() * sizeof(T))), stream_(stream) {
    stream_.copy(buffer_.data(), host.data(), size_ * sizeof(T));
    stream_.synchronize();
  }
  [[nodiscard]] T* data() const { return buffer_.as<T>(); }
  [[nodiscard]] std::vector<T> read() const {
    std::vector<T> host(size_);
    stream_.copy(host.data(), buffer_.data(), size_ * sizeof(T));
    stream_.synchronize();
    return host;
  }

 private:
  std::size_t size_;
  Buffer buffer_;
  Stream& stream_;
};

}  // namespace spdnn::test
