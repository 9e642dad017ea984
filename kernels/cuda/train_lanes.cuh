// What training's kernels have in common: panels of 64 images, two for each lane of a warp.
#pragma once

#include "cuda/device_code.cuh"
#include "spdnn/train_op.hpp"

namespace spdnn::cuda {

struct TrainTraits {
  /// Threads. A kernel that says that one block an SM will do, does so since the compiler would
  /// otherwise spill for the sake of more of them.
  static constexpr int block = 256;
  static constexpr int warps = block / kWarp;
  static constexpr int width = 64;              ///< images of a panel
  static constexpr int images = width / kWarp;  ///< of a lane
  static constexpr int entries = 8;             ///< whose gradients a warp sums side by side
  static_assert(block % kWarp == 0 && block <= 1024 && images == 2);
};

/// A lane's two images of one feature.
template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T v[2];
};

/// What is stored becomes what is computed with as it is loaded, and the other way round.
template <class T>
__device__ __forceinline__ Pair<Wide<T>> load_pair(const T* at) {
  const Pair<T> stored = *reinterpret_cast<const Pair<T>*>(at);
  return {stored.v[0], stored.v[1]};
}
template <class T>
__device__ __forceinline__ void store_pair(T* to, const Pair<Wide<T>>& pair) {
  *reinterpret_cast<Pair<T>*>(to) = {T(pair.v[0]), T(pair.v[1])};
}

template <class T>
__device__ __forceinline__ void add_product(Pair<T>& sum, Wide<T> weight, const Pair<T>& x) {
  sum.v[0] += weight * x.v[0];
  sum.v[1] += weight * x.v[1];
}

/// Stores h(sum + bias).
template <class T>
__device__ __forceinline__ void store_activated(Pair<Wide<T>> sum, Wide<T> bias,
                                                const Epilogue& activation, T* to) {
  const Wide<T> lower = activation.lower;
  const Wide<T> upper = activation.upper;
#pragma unroll
  for (int i = 0; i < TrainTraits::images; ++i) {
    Wide<T> value = sum.v[i] + bias;
    value = value > lower ? value : lower;
    sum.v[i] = value < upper ? value : upper;
  }
  store_pair(to, sum);
}

/// Whether `made`, stored as T, lies between the bounds of the activation that made it, which were
/// rounded alike.
template <class T>
__device__ __forceinline__ bool is_between(Wide<T> made, const Epilogue& activation) {
  return made > Wide<T>(T(activation.lower)) && made < Wide<T>(T(activation.upper));
}

/// Stores `sum` where `made` lies between the bounds of the activation that made it, else 0.
template <class T>
__device__ __forceinline__ void store_masked(Pair<Wide<T>> sum, const Pair<Wide<T>>& made,
                                             const Epilogue& activation, T* to) {
#pragma unroll
  for (int i = 0; i < TrainTraits::images; ++i) {
    if (!is_between<T>(made.v[i], activation)) sum.v[i] = 0;
  }
  store_pair(to, sum);
}

/// Lanes that meet halve what they hold of `kCount` values, each taking the sums of one half: from
/// 2 · kHalf values a lane to one.
template <int kHalf, class T, int kCount>
__device__ __forceinline__ void halve(T (&values)[kCount]) {
  if constexpr (kHalf > 0) {
    constexpr int kApart = kWarp * kHalf / kCount;
    const bool upper = threadIdx.x % (2 * kApart) >= kApart;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const T kept = upper ? values[i + kHalf] : values[i];
      const T given = upper ? values[i] : values[i + kHalf];
      values[i] = kept + __shfl_xor_sync(kFullWarp, given, kApart);
    }
    halve<kHalf / 2>(values);
  }
}

/// Sums each of `values`, a power of two of them, over a warp's lanes: lane l ends with the sum of
/// value `sum_held_by<kCount>(l)`. Overwrites `values`.
template <class T, int kCount>
__device__ __forceinline__ T warp_sums(T (&values)[kCount]) {
  halve<kCount / 2>(values);
  T sum = values[0];
#pragma unroll
  for (int lanes = kWarp / (2 * kCount); lanes > 0; lanes /= 2) {
    sum += __shfl_xor_sync(kFullWarp, sum, lanes);
  }
  return sum;
}

/// Which of the values of `warp_sums` a lane has the sum of; kWarp / kCount lanes have each.
template <int kCount>
__device__ __forceinline__ int sum_held_by(int lane) {
  return lane / (kWarp / kCount);
}

/// Puts a sum where it goes, or adds it to what is there.
template <class T>
__device__ __forceinline__ void put_sum(T sum, bool adds_up, T* to) {
  *to = adds_up ? *to + sum : sum;
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
