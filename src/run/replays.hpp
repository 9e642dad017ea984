// Segments that a device has run before, queued again as a whole.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "spdnn/device.hpp"

namespace spdnn {

/// The images a rank has under way, as the host knows them.
struct Current {
  float* data = nullptr;         ///< activations
  std::int32_t* ids = nullptr;   ///< which images they are
  std::int64_t bound = 0;        ///< how many there are at most
  std::int32_t* live = nullptr;  ///< how many there are, on the device; null: exactly `bound`
  friend bool operator==(const Current&, const Current&) = default;
};

/// Queues the work of segments. What is queued depends on the segment and the current images alone,
/// so that work met for the second time is kept by the stream and replayed from then on: keeping it
/// costs about as much as two launches of it, and a run of one batch never meets it again.
class Replays {
 public:
  /// Queues work for `now` and returns the images current after it; does nothing else.
  using Work = std::function<Current(const Current& now)>;
  Current run(Stream& stream, std::size_t segment, const Current& now, const Work& work);
  /// Segments that were replayed.
  [[nodiscard]] std::int64_t replayed() const noexcept { return replayed_; }

 private:
  struct Entry {
    std::size_t segment;
    Current before, after;
    std::unique_ptr<Recording> recording;
    bool met_again = false;  ///< and if there is no recording, the device can't keep it
  };
  std::vector<Entry> entries_;
  std::int64_t replayed_ = 0;
};

}  // namespace spdnn
