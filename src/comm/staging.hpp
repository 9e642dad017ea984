// Host copies of device memory for the length of one collective.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "spdnn/device.hpp"

namespace spdnn::comm {

/// Gives collectives that work on host memory the memory of a stream to work on. A null or CPU
/// stream's memory is used as it is; a GPU's is copied, since the other ranks' threads cannot read
/// it.
class Staging {
 public:
  explicit Staging(Stream* stream)
      : stream_(stream), copies_(stream != nullptr && stream->native() != nullptr) {}

  /// Whether it makes copies.
  [[nodiscard]] bool copies() const { return copies_; }
  /// Memory with the contents of `data`, there once `begin` has returned.
  [[nodiscard]] const void* input(const void* data, std::size_t bytes) {
    if (!copies_ || bytes == 0) return data;
    void* host = allocate(bytes);
    stream_->copy(host, data, bytes);
    return host;
  }
  /// Memory whose contents `end` brings to `data`.
  [[nodiscard]] void* output(void* data, std::size_t bytes) {
    if (!copies_ || bytes == 0) return data;
    void* host = allocate(bytes);
    outputs_.push_back({data, host, bytes});
    return host;
  }
  /// Waits for what the stream did before the collective.
  void begin() {
    if (stream_ != nullptr) stream_->synchronize();
  }
  /// Brings the outputs to where they belong.
  void end() {
    for (const Output& out : outputs_) stream_->copy(out.data, out.host, out.bytes);
    if (!outputs_.empty()) stream_->synchronize();
  }

 private:
  struct Output {
    void* data;
    const void* host;
    std::size_t bytes;
  };
  void* allocate(std::size_t bytes) {
    // Doubles for their alignment; left uninitialised.
    memory_.emplace_back(new double[(bytes + sizeof(double) - 1) / sizeof(double)]);
    return memory_.back().get();
  }

  Stream* stream_;
  bool copies_;
  std::vector<std::unique_ptr<double[]>> memory_;
  std::vector<Output> outputs_;
};

}  // namespace spdnn::comm
