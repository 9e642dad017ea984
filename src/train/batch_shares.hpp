// Which images of each step are a rank's, and how that follows the times that ranks take.
#pragma once

#include <optional>

#include "spdnn/balance.hpp"
#include "spdnn/comm.hpp"
#include "spdnn/train.hpp"

namespace spdnn::train {

/// The images of every step, shared among the ranks of a group. All ranks hold equal copies.
class BatchShares {
 public:
  /// `shares` of a whole batch, one for each rank of `comm`, in pieces of `grain` images. With
  /// `balancer`, which starts from them, they follow measured times.
  BatchShares(Communicator& comm, std::vector<std::int64_t> shares, std::int64_t grain,
              std::optional<Balancer> balancer);

  /// This rank's part of a step over `images`, at most a batch.
  [[nodiscard]] Range of(std::int64_t images) const;
  /// This rank's part of every step over `images`, `batch` of them at a time.
  [[nodiscard]] std::vector<Range> of_all(std::int64_t images, std::int64_t batch) const;
  /// The most images this rank has in any step.
  [[nodiscard]] std::int64_t most() const { return shares_[comm_.rank()]; }
  [[nodiscard]] const std::vector<std::int64_t>& whole() const noexcept { return shares_; }
  [[nodiscard]] bool follows() const noexcept { return balancer_.has_value(); }
  /// Seconds of a step as far as is known; 0 where times are not followed.
  [[nodiscard]] double predicted() const { return balancer_ ? balancer_->predicted() : 0.0; }

  /// Ranks tell each other how long each took for its `images` of a step, which may still be those
  /// of earlier shares. Every rank of the group calls it. Returns whether shares changed, which
  /// they do on all ranks or none.
  bool observe(std::int64_t images, double seconds);

 private:
  [[nodiscard]] std::vector<std::int64_t> sizes(std::int64_t images) const;

  Communicator& comm_;
  std::vector<std::int64_t> shares_;
  std::int64_t grain_;
  std::optional<Balancer> balancer_;
};

}  // namespace spdnn::train
