// What training's kernels have in common: panels of 64 images, two for each lane of a warp.
#pragma once

#include "cuda/device_code.cuh"
#include "spdnn/train_op.hpp"

namespace spdnn::cuda {

struct TrainTraits {
  static constexpr int block = 256;  ///< threads
  static constexpr int warps = block / kWarp;
  static constexpr int width = 64;              ///< images of a panel
  static constexpr int images = width / kWarp;  ///< of a lane
  static constexpr int entries = 4;             ///< whose gradients a warp sums side by side
  static_assert(block % kWarp == 0 && block <= 1024 && images == 2);
};

/// A lane's two images of one feature.
template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T v[2];
};

template <class T>
__device__ __forceinline__ Pair<T> load_pair(const T* at) {
  return *reinterpret_cast<const Pair<T>*>(at);
}

template <class T>
__device__ __forceinline__ void add_product(Pair<T>& sum, T weight, const Pair<T>& x) {
  sum.v[0] += weight * x.v[0];
  sum.v[1] += weight * x.v[1];
}

/// The sum over a warp's lanes, in all of them.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    value += __shfl_xor_sync(kFullWarp, value, lanes);
  }
  return value;
}

/// by_columns[k] ← values[entries[k]]. Grid of any size; a thread an entry.
template <class T>
__global__ void __launch_bounds__(TrainTraits::block)
    gather_values_kernel(const T* values, const std::uint32_t* entries, std::int64_t count,
                         T* by_columns) {
  const std::int64_t threads = std::int64_t{gridDim.x} * TrainTraits::block;
  for (std::int64_t k = std::int64_t{blockIdx.x} * TrainTraits::block + threadIdx.x; k < count;
       k += threads) {
    by_columns[k] = values[entries[k]];
  }
}

}  // namespace spdnn::cuda
