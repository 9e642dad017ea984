// What ranks with some of the outputs each say of an image's loss, put together; for kernels of all
// devices.
#pragma once

#include <cmath>

#include "spdnn/train_op.hpp"

namespace spdnn {

/// What all outputs say of an image; see `LossPart`.
template <class W>
struct WholeLoss {
  W top, which, sum, at_label;

  /// The image's loss over so many outputs.
  [[nodiscard]] SPDNN_HOST_DEVICE double value(Loss loss, std::int64_t outputs) const {
    if (loss == Loss::mean_squared_error) {
      return static_cast<double>(sum) / (2.0 * static_cast<double>(outputs));
    }
    return static_cast<double>(std::log(sum)) - static_cast<double>(at_label - top);
  }
};

/// Sums of a softmax are of differences to the largest output of the rank, so that nothing
/// overflows; here they become those to the largest of all.
template <class W>
[[nodiscard]] SPDNN_HOST_DEVICE inline WholeLoss<W> put_together(const Panels<const W>& parts,
                                                                 std::int64_t image, Loss loss) {
  const auto word = [&](std::int64_t first, std::int64_t which) {
    return parts.at(first + which, image);
  };
  WholeLoss<W> whole = {word(0, LossPart::top), word(0, LossPart::which), W{0},
                        word(0, LossPart::at_label)};
  for (std::int64_t r = LossPart::words; r < parts.features; r += LossPart::words) {
    const W top = word(r, LossPart::top);
    const W which = word(r, LossPart::which);
    if (top > whole.top || (top == whole.top && which < whole.which)) {
      whole.top = top;
      whole.which = which;
    }
    const W at_label = word(r, LossPart::at_label);
    if (at_label > whole.at_label) whole.at_label = at_label;
  }
  for (std::int64_t r = 0; r < parts.features; r += LossPart::words) {
    const W lift =
        loss == Loss::cross_entropy ? std::exp(word(r, LossPart::top) - whole.top) : W{1};
    whole.sum += word(r, LossPart::sum) * lift;
  }
  return whole;
}

}  // namespace spdnn
