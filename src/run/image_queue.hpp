// Images that no rank has begun yet, and which rank begins which.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "spdnn/plan.hpp"

namespace spdnn {

/// Who begins which images.
class ImageSource {
 public:
  virtual ~ImageSource() = default;
  /// The next images for `rank` to begin, `batch` of them at most; empty when there are none that
  /// it may have.
  [[nodiscard]] virtual Range take(int rank, std::int64_t batch) = 0;
  /// Images that nobody has begun, for each one that somebody has; 0 where that is not known.
  [[nodiscard]] virtual double rest() const { return 0.0; }
};

/// Each rank's share of the images, handed out in batches. All functions may be called from any
/// thread, and none blocks.
class ImageQueue final : public ImageSource {
 public:
  /// `grain`: images that are never divided between two ranks, but for the last of a share.
  ImageQueue(const std::vector<Range>& shares, Sharing sharing, std::int64_t grain);

  /// With `Sharing::stealing` a rank whose share is used up takes the back half of the largest rest
  /// of another's as its own.
  [[nodiscard]] Range take(int rank, std::int64_t batch) override;
  [[nodiscard]] double rest() const override;

 private:
  /// A range in one word, so that its front and its back are taken without a lock.
  struct alignas(64) Share {
    std::atomic<std::uint64_t> range{0};
  };
  [[nodiscard]] Range take_front(Share& share, std::int64_t batch);
  [[nodiscard]] Range steal();

  std::vector<Share> shares_;
  std::int64_t images_;
  Sharing sharing_;
  std::int64_t grain_;
};

}  // namespace spdnn
