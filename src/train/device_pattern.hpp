// A pattern where the kernels of a device can read it.
#pragma once

#include "pattern.hpp"
#include "spdnn/device.hpp"
#include "spdnn/rewire_op.hpp"

namespace spdnn::train {

/// On the CPU the pattern's own arrays, which must live as long; elsewhere copies of all of them,
/// made on the stream: the pattern must stay as it is until the stream has passed this point.
class DevicePattern {
 public:
  DevicePattern(const Pattern& pattern, Device& device, Stream& stream);

  /// Takes the pattern as it is now, with as many connections: copies go where the old ones were.
  void store(const Pattern& pattern, Stream& stream);
  [[nodiscard]] const PatternView& view() const noexcept { return view_; }
  /// The copies, to be changed where they are; there must be some.
  [[nodiscard]] const PatternArrays& arrays() const noexcept { return copies_; }
  /// Brings them back to `pattern`, which forgot them. Waits for the stream.
  void fetch(Pattern& pattern, Stream& stream) const;
  /// Of the copies, by rows and by columns.
  [[nodiscard]] std::int64_t csr_bytes() const noexcept { return csr_bytes_; }
  [[nodiscard]] std::int64_t csc_bytes() const noexcept { return csc_bytes_; }

 private:
  PatternView view_;
  PatternArrays copies_;
  Buffer memory_;
  std::int64_t csr_bytes_ = 0, csc_bytes_ = 0;
};

}  // namespace spdnn::train
