// Device code that lets go of images which need no layers of their own: those that equal another
// one, and those that the last layer left as they were.
#pragma once

#include "cuda/panel.cuh"

namespace spdnn::cuda {

struct SettleTraits {
  static constexpr int block = 256;  ///< threads
  static_assert(block % kWarp == 0 && block <= 1024);
};

/// The first item of this thread, and how far its next one is: a thread an item, grid of any size.
__device__ __forceinline__ std::int64_t first_item() {
  return std::int64_t{blockIdx.x} * SettleTraits::block + threadIdx.x;
}
__device__ __forceinline__ std::int64_t item_step() {
  return std::int64_t{gridDim.x} * SettleTraits::block;
}

/// *total += the warp's counts; all lanes meet here.
__device__ __forceinline__ void add_count(std::int64_t* total, unsigned count) {
#pragma unroll
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    count += __shfl_xor_sync(kFullWarp, count, lanes);
  }
  if (threadIdx.x % kWarp == 0 && count > 0) {
    atomicAdd(reinterpret_cast<unsigned long long*>(total), count);
  }
}

/// A living image whose first equal is another one gets it as its parent and dies.
inline __global__ void __launch_bounds__(SettleTraits::block)
    merge_equal_kernel(SettleArgs<float> args) {
  unsigned merged = 0;
  const std::int64_t live = live_images(args.x);
#pragma unroll 1
  for (std::int64_t slot = first_item(); slot < live; slot += item_step()) {
    const std::int32_t first = args.first[slot];
    if (first == slot || args.alive[slot] == 0) continue;
    args.parent[args.ids[slot]] = args.ids[first];
    args.alive[slot] = 0;
    ++merged;
  }
  add_count(args.equal_count, merged);
}

/// Marks the images that stand by now for those whose outputs are wanted.
inline __global__ void __launch_bounds__(SettleTraits::block)
    mark_wanted_kernel(SettleArgs<float> args) {
  for (std::int64_t i = first_item(); i < args.wanted_count; i += item_step()) {
    std::int32_t image = args.wanted[i];
    while (args.parent[image] >= 0) image = args.parent[image];
    args.is_wanted[image] = 1;
  }
}

/// A living image that the last layer left as it was is done, unless its outputs may be wanted.
inline __global__ void __launch_bounds__(SettleTraits::block)
    finish_fixed_kernel(SettleArgs<float> args) {
  unsigned finished = 0;
  const std::int64_t live = live_images(args.x);
#pragma unroll 1
  for (std::int64_t slot = first_item(); slot < live; slot += item_step()) {
    if (slot < args.first_wanted || args.alive[slot] == 0 || args.unchanged[slot] == 0) continue;
    const std::int32_t image = args.ids[slot];
    if (args.is_wanted[image] != 0) continue;
    args.finished[image] = 1;
    args.alive[slot] = 0;
    ++finished;
  }
  add_count(args.fixed_count, finished);
}

}  // namespace spdnn::cuda
