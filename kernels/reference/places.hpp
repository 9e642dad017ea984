// Where a window's columns meet the inputs, for the plain loops of the reference.
#pragma once

#include "spdnn/op.hpp"

namespace spdnn {

/// Calls `visit(out_pixel, in_feature)` for every place of the window in which column `col` meets
/// an input. In a linear layer, whose planes are single features, that is one.
template <class Visit>
void for_each_place(const Window2d& w, std::int64_t col, const Visit& visit) {
  const std::int64_t channel = col / w.taps();
  const std::int64_t ky = col % w.taps() / w.kernel_width;
  const std::int64_t kx = col % w.kernel_width;
  for (std::int64_t oy = 0; oy < w.out_height; ++oy) {
    const std::int64_t iy = oy * w.stride + ky - w.pad_top;
    if (iy < 0 || iy >= w.in_height) continue;
    for (std::int64_t ox = 0; ox < w.out_width; ++ox) {
      const std::int64_t ix = ox * w.stride + kx - w.pad_left;
      if (ix < 0 || ix >= w.in_width) continue;
      visit(oy * w.out_width + ox, (channel * w.in_height + iy) * w.in_width + ix);
    }
  }
}

}  // namespace spdnn
