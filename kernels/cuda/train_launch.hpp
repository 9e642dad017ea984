// What the launchers of training's kernels have in common.
#pragma once

#include "cuda/launch.hpp"
#include "cuda/train_lanes.cuh"

namespace spdnn::cuda {

inline void check_train_width(std::int64_t width) {
  if (width == TrainTraits::width) return;
  throw DeviceError("training on CUDA takes panels of " + std::to_string(TrainTraits::width) +
                    " images, not " + std::to_string(width));
}

/// Brings a sparse layer's values into the order of columns.
template <class T>
void gather_values(const LinearView<T>& layer, T* by_columns, Stream& stream) {
  const PatternView& w = layer.pattern;
  if (w.nnz == 0) return;
  launch(&gather_values_kernel<T>, grid_for(ceil_div(w.nnz, TrainTraits::block)),
         TrainTraits::block, 0, stream_of(stream), layer.values, w.entries, w.nnz, by_columns);
  check_launch("backward_data (values)");
}

}  // namespace spdnn::cuda
