// Shares of whole and of smaller steps, and their change by agreement.
#include "batch_shares.hpp"

#include <algorithm>
#include <numeric>

namespace spdnn::train {

BatchShares::BatchShares(Communicator& comm, std::vector<std::int64_t> shares, std::int64_t grain,
                         std::optional<Balancer> balancer)
    : comm_(comm), shares_(std::move(shares)), grain_(grain), balancer_(std::move(balancer)) {}

/// Parts of a step that is not a whole batch are in proportion, and never larger than those of one,
/// for which there is room.
std::vector<std::int64_t> BatchShares::sizes(std::int64_t images) const {
  const std::int64_t batch = std::accumulate(shares_.begin(), shares_.end(), std::int64_t{0});
  if (images >= batch) return shares_;
  std::vector<std::int64_t> sizes;
  std::int64_t left = images;
  for (const std::int64_t share : shares_) {
    sizes.push_back(std::min(images * share / batch / grain_ * grain_, left));
    left -= sizes.back();
  }
  while (left > 0) {
    std::size_t most = 0;  // the rank with most of its share still free
    for (std::size_t r = 1; r < sizes.size(); ++r) {
      if (shares_[r] - sizes[r] > shares_[most] - sizes[most]) most = r;
    }
    const std::int64_t piece = std::min({grain_, shares_[most] - sizes[most], left});
    sizes[most] += piece;
    left -= piece;
  }
  return sizes;
}

Range BatchShares::of(std::int64_t images) const {
  const std::vector<std::int64_t> all = sizes(images);
  const auto own = all.begin() + comm_.rank();
  const std::int64_t begin = std::accumulate(all.begin(), own, std::int64_t{0});
  return {begin, begin + *own};
}

std::vector<Range> BatchShares::of_all(std::int64_t images, std::int64_t batch) const {
  std::vector<Range> parts;
  for (std::int64_t begin = 0; begin < images; begin += batch) {
    const Range own = of(std::min(batch, images - begin));
    parts.push_back({begin + own.begin, begin + own.end});
  }
  return parts;
}

bool BatchShares::observe(std::int64_t images, double seconds) {
  if (!balancer_) return false;
  const std::size_t ranks = shares_.size();
  const double own[2] = {static_cast<double>(images), seconds};
  std::vector<double> all(2 * ranks);
  comm_.all_gather(own, all.data(), std::vector<std::int64_t>(ranks, 2), DType::f64, nullptr);
  std::vector<std::int64_t> all_images;
  std::vector<double> all_seconds;
  for (std::size_t r = 0; r < ranks; ++r) {
    all_images.push_back(static_cast<std::int64_t>(all[2 * r]));
    all_seconds.push_back(all[2 * r + 1]);
  }
  if (!balancer_->observe(all_images, all_seconds)) return false;
  shares_ = balancer_->shares();
  return true;
}

}  // namespace spdnn::train
