// Ranges of images packed into words: an owner takes from the front, thieves from the back.
#include "image_queue.hpp"

#include <algorithm>

namespace spdnn {
namespace {

std::uint64_t pack(Range range) {
  return static_cast<std::uint64_t>(range.begin) << 32U | static_cast<std::uint64_t>(range.end);
}

Range unpack(std::uint64_t word) {
  return {static_cast<std::int64_t>(word >> 32U), static_cast<std::int64_t>(word & 0xFFFFFFFFU)};
}

}  // namespace

ImageQueue::ImageQueue(const std::vector<Range>& shares, Sharing sharing, std::int64_t grain)
    : shares_(shares.size()),
      images_(0),
      sharing_(sharing),
      grain_(std::max<std::int64_t>(grain, 1)) {
  Range all;
  for (std::size_t rank = 0; rank < shares.size(); ++rank) {
    shares_[rank].range = pack(shares[rank]);
    all.end = std::max(all.end, shares[rank].end);
    images_ += shares[rank].size();
  }
  if (sharing == Sharing::common) {
    for (Share& share : shares_) share.range = pack({});
    shares_[0].range = pack(all);
  }
}

Range ImageQueue::take(int rank, std::int64_t batch) {
  Share& own = shares_[sharing_ == Sharing::common ? 0 : rank];
  Range taken = take_front(own, batch);
  if (taken.size() > 0 || sharing_ != Sharing::stealing) return taken;
  taken = steal();
  if (taken.size() > batch) {
    // An empty share is filled by its owner alone, so nobody can have changed it.
    own.range.store(pack({taken.begin + batch, taken.end}), std::memory_order_release);
    taken.end = taken.begin + batch;
  }
  return taken;
}

double ImageQueue::rest() const {
  std::int64_t left = 0;
  for (const Share& share : shares_) {
    left += unpack(share.range.load(std::memory_order_relaxed)).size();
  }
  return static_cast<double>(left) / static_cast<double>(std::max<std::int64_t>(images_ - left, 1));
}

Range ImageQueue::take_front(Share& share, std::int64_t batch) {
  std::uint64_t word = share.range.load(std::memory_order_acquire);
  for (;;) {
    const Range range = unpack(word);
    if (range.size() == 0) return {};
    const std::int64_t next = std::min(range.begin + batch, range.end);
    if (share.range.compare_exchange_weak(word, pack({next, range.end}),
                                          std::memory_order_acq_rel)) {
      return {range.begin, next};
    }
  }
}

Range ImageQueue::steal() {
  for (;;) {
    Share* victim = nullptr;
    std::uint64_t word = 0;
    for (Share& share : shares_) {
      const std::uint64_t seen = share.range.load(std::memory_order_acquire);
      if (unpack(seen).size() > unpack(word).size()) {
        victim = &share;
        word = seen;
      }
    }
    if (victim == nullptr) return {};
    const Range range = unpack(word);
    const std::int64_t half = (range.size() / 2 + grain_ - 1) / grain_ * grain_;
    const std::int64_t stolen = std::min(std::max(half, grain_), range.size());
    if (victim->range.compare_exchange_strong(word, pack({range.begin, range.end - stolen}),
                                              std::memory_order_acq_rel)) {
      return {range.end - stolen, range.end};
    }
  }
}

}  // namespace spdnn
