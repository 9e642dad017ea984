// Parts of batches and of layers: views of some panels, and of some rows.
#pragma once

#include <algorithm>

#include "pattern.hpp"
#include "spdnn/train_op.hpp"

namespace spdnn::train {

/// The images of some panels.
template <class T>
Panels<T> cut(const Panels<T>& x, Range panels) {
  const std::int64_t before = std::min(x.batch, panels.begin * x.width);
  return {x.panel(panels.begin), x.features, std::min(x.batch, panels.end * x.width) - before,
          x.width, x.live};
}

/// The rows of `range` of a layer's weights; `pattern` is what the host knows of it.
template <class T>
LinearView<T> cut(const LinearView<T>& layer, const Pattern& pattern, Range range) {
  LinearView<T> part = layer;
  part.pattern.rows = range.size();
  part.bias += range.begin;
  if (pattern.is_dense()) {
    part.pattern.nnz = range.size() * layer.pattern.cols;
    part.values += range.begin * layer.pattern.cols;
  } else {
    part.pattern.nnz = pattern.row_offsets()[range.end] - pattern.row_offsets()[range.begin];
    part.pattern.row_offsets += range.begin;
  }
  return part;
}

}  // namespace spdnn::train
