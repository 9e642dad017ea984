// Device code of training's poolings; mapping and costs are described in train_pool.cu.
#pragma once

#include "cuda/train_lanes.cuh"

namespace spdnn::cuda {

/// The places of one window that lie in the plane.
struct PoolWindow {
  std::int64_t top, bottom, left, right;  ///< past the last: bottom, right

  __device__ __forceinline__ PoolWindow(const Window2d& w, std::int64_t out_y, std::int64_t out_x) {
    top = out_y * w.stride - w.pad_top;
    left = out_x * w.stride - w.pad_left;
    bottom = top + w.kernel_height < w.in_height ? top + w.kernel_height : w.in_height;
    right = left + w.kernel_width < w.in_width ? left + w.kernel_width : w.in_width;
    top = top < 0 ? 0 : top;
    left = left < 0 ? 0 : left;
  }
  [[nodiscard]] __device__ __forceinline__ std::int64_t size() const {
    return (bottom - top) * (right - left);
  }
  /// Calls `body(place)` for every place of the plane that it holds, in order.
  template <class Body>
  __device__ __forceinline__ void for_each(const Window2d& w, const Body& body) const {
    for (std::int64_t y = top; y < bottom; ++y) {
      for (std::int64_t x = left; x < right; ++x) body(y * w.in_width + x);
    }
  }
};

/// Grid of any size; a warp owns an output of a panel.
template <class T>
__global__ void __launch_bounds__(TrainTraits::block, 1)
    train_pool_forward_kernel(PoolForwardArgs<T> args) {
  const Window2d& w = args.window;
  const bool mean = args.kind == LayerKind::average_pool;
  const std::int64_t lane = threadIdx.x % kWarp * TrainTraits::images;
  const std::int64_t items = args.y.count() * args.y.features;
  const std::int64_t warps = std::int64_t{gridDim.x} * TrainTraits::warps;
  for (std::int64_t item = std::int64_t{blockIdx.x} * TrainTraits::warps + threadIdx.x / kWarp;
       item < items; item += warps) {
    const std::int64_t panel = item / args.y.features;
    const std::int64_t output = item % args.y.features;
    const std::int64_t pixel = output % w.out_pixels();
    const PoolWindow window(w, pixel / w.out_width, pixel % w.out_width);
    const T* plane =
        args.x.panel(panel) + output / w.out_pixels() * w.in_pixels() * TrainTraits::width + lane;
    Pair<Wide<T>> result =
        load_pair(plane + (window.top * w.in_width + window.left) * TrainTraits::width);
    if (mean) result = {};
    window.for_each(w, [&](std::int64_t place) {
      const Pair<Wide<T>> in = load_pair(plane + place * TrainTraits::width);
#pragma unroll
      for (int i = 0; i < TrainTraits::images; ++i) {
        result.v[i] = mean ? result.v[i] + in.v[i] : in.v[i] > result.v[i] ? in.v[i] : result.v[i];
      }
    });
#pragma unroll
    for (int i = 0; i < TrainTraits::images; ++i) {
      if (mean) result.v[i] /= static_cast<Wide<T>>(window.size());
    }
    store_pair(args.y.panel(panel) + output * TrainTraits::width + lane, result);
  }
}

/// What one window hands back to the input at `own`, whose images are `x`: `dy` where that is its
/// largest, the first of equal ones, or its part of a mean.
template <class T>
__device__ __forceinline__ void add_window(Pair<Wide<T>>& sum, bool mean, const Window2d& w,
                                           const PoolWindow& window, std::int64_t own,
                                           const Pair<Wide<T>>& x, const T* plane,
                                           const Pair<Wide<T>>& dy) {
  if (mean) {
    sum.v[0] += dy.v[0] / static_cast<Wide<T>>(window.size());
    sum.v[1] += dy.v[1] / static_cast<Wide<T>>(window.size());
    return;
  }
  bool largest[TrainTraits::images] = {true, true};
  window.for_each(w, [&](std::int64_t place) {
    const Pair<Wide<T>> other = load_pair(plane + place * TrainTraits::width);
#pragma unroll
    for (int i = 0; i < TrainTraits::images; ++i) {
      const bool beaten = place < own ? other.v[i] >= x.v[i] : other.v[i] > x.v[i];
      largest[i] = largest[i] && !beaten;
    }
  });
#pragma unroll
  for (int i = 0; i < TrainTraits::images; ++i) {
    if (largest[i]) sum.v[i] += dy.v[i];
  }
}

/// Grid of any size; a warp owns an input of a panel.
template <class T>
__global__ void __launch_bounds__(TrainTraits::block, 1)
    train_pool_backward_kernel(PoolBackwardArgs<T> args) {
  const Window2d& w = args.window;
  const bool mean = args.kind == LayerKind::average_pool;
  const std::int64_t lane = threadIdx.x % kWarp * TrainTraits::images;
  const std::int64_t items = args.x.count() * args.x.features;
  const std::int64_t warps = std::int64_t{gridDim.x} * TrainTraits::warps;
  for (std::int64_t item = std::int64_t{blockIdx.x} * TrainTraits::warps + threadIdx.x / kWarp;
       item < items; item += warps) {
    const std::int64_t panel = item / args.x.features;
    const std::int64_t input = item % args.x.features;
    const std::int64_t channel = input / w.in_pixels();
    const std::int64_t own = input % w.in_pixels();
    const std::int64_t y = own / w.in_width + w.pad_top;
    const std::int64_t x = own % w.in_width + w.pad_left;
    const T* plane = args.x.panel(panel) + channel * w.in_pixels() * TrainTraits::width + lane;
    const T* dy = args.dy.panel(panel) + channel * w.out_pixels() * TrainTraits::width + lane;
    const Pair<Wide<T>> made = load_pair(plane + own * TrainTraits::width);
    Pair<Wide<T>> sum{};
    // The first window that reaches down to the input, and those after it that begin before it
    // ends.
    const std::int64_t above = y - w.kernel_height;
    const std::int64_t before = x - w.kernel_width;
    for (std::int64_t out_y = above < 0 ? 0 : above / w.stride + 1;
         out_y < w.out_height && out_y * w.stride <= y; ++out_y) {
      for (std::int64_t out_x = before < 0 ? 0 : before / w.stride + 1;
           out_x < w.out_width && out_x * w.stride <= x; ++out_x) {
        add_window(sum, mean, w, PoolWindow(w, out_y, out_x), own, made, plane,
                   load_pair(dy + (out_y * w.out_width + out_x) * TrainTraits::width));
      }
    }
    store_masked(sum, made, args.activation,
                 args.dx.panel(panel) + input * TrainTraits::width + lane);
  }
}

}  // namespace spdnn::cuda
