// Batches of labelled images in panels, filled by a thread of their own while a rank computes.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "spdnn/io.hpp"
#include "spdnn/op.hpp"

namespace spdnn::train {

/// A rank's share of one step.
struct Batch {
  Panels<const float> x;                 ///< [features × images]; 0 in lanes without an image
  const std::int32_t* labels = nullptr;  ///< of x.batch images
};

/// Two batches in turn: one is with the rank while the other is filled.
class Loader {
 public:
  /// Room for batches of up to `most_images` of `features` in panels of `width`. The thread runs on
  /// any of `cores`, since the rank's own is busy; none: where the rank's does.
  Loader(std::int64_t features, std::int64_t most_images, std::int64_t width, Device& device,
         const std::vector<int>& cores);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Begins to load one batch for each of `shares`, ranges of `order`, which lists images of
  /// `data`. All batches of the start before must have been taken.
  void start(const LabelledImages& data, std::vector<std::uint32_t> order,
             std::vector<Range> shares);
  /// Gives batches from the `first` on other ranges, of up to `most_images` each. No batch from
  /// `first` on may have been filled: two after the one taken last is safe.
  void change(std::int64_t first, const std::vector<Range>& shares, std::int64_t most_images,
              Device& device);
  /// The next batch; the one before is given back.
  [[nodiscard]] Batch next();

  [[nodiscard]] std::int64_t bytes() const;

 private:
  struct Slot {
    Buffer x;
    std::vector<std::int32_t> labels;
    std::int64_t images = 0;
    Buffer larger;  ///< changes places with `x` when the slot is filled next
  };
  [[nodiscard]] Buffer room(std::int64_t most_images, Device& device) const;
  void work();
  void fill(Slot& slot, Range share);

  std::int64_t features_, width_;
  Slot slots_[2];
  const LabelledImages* data_ = nullptr;
  std::vector<std::uint32_t> order_;
  std::vector<Range> shares_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::int64_t filled_ = 0;    ///< batches filled since `start`
  std::int64_t taken_ = 0;     ///< batches handed out since `start`
  std::int64_t returned_ = 0;  ///< batches given back since `start`
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace spdnn::train
