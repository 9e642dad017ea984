// Device code of training's linear layers, sparse and dense; mapping and costs are described in
// train_linear.cu.
#pragma once

#include "cuda/train_lanes.cuh"

namespace spdnn::cuda {

/// A list of features and a weight for each: a row of W, or of its transpose. Dense lists have no
/// indices, and a weight every `stride`.
template <class T>
struct ListView {
  const std::int64_t* offsets = nullptr;  ///< null: dense
  const std::uint32_t* indices = nullptr;
  const T* values = nullptr;
  std::int64_t count = 0;   ///< lists
  std::int64_t length = 0;  ///< of a dense list
  std::int64_t first = 0;   ///< where dense list i begins: i · first
  std::int64_t stride = 1;
};

/// Σ weight · in[feature] over list `index`; `in` points at the lane's images of feature 0.
template <class T, bool kDense>
__device__ __forceinline__ Pair<T> list_sum(const ListView<T>& lists, std::int64_t index,
                                            const T* in) {
  Pair<T> sum{};
  if constexpr (kDense) {
    const T* value = lists.values + index * lists.first;
#pragma unroll 4
    for (std::int64_t k = 0; k < lists.length; ++k) {
      add_product(sum, value[k * lists.stride], load_pair(in + k * TrainTraits::width));
    }
  } else {
    const std::int64_t end = lists.offsets[index + 1];
#pragma unroll 4
    for (std::int64_t k = lists.offsets[index]; k < end; ++k) {
      const T* at = in + std::int64_t{lists.indices[k]} * TrainTraits::width;
      add_product(sum, lists.values[k], load_pair(at));
    }
  }
  return sum;
}

/// Calls `body(list, panel)` for every pair of them, a warp each; grid of any size.
template <class Body>
__device__ __forceinline__ void for_each_list(std::int64_t lists, std::int64_t panels,
                                              const Body& body) {
  const std::int64_t warps = std::int64_t{gridDim.x} * TrainTraits::warps;
  for (std::int64_t item = std::int64_t{blockIdx.x} * TrainTraits::warps + threadIdx.x / kWarp;
       item < lists * panels; item += warps) {
    body(item % lists, item / lists);
  }
}

/// y ← h(lists · x + b).
template <class T, bool kDense>
__global__ void __launch_bounds__(TrainTraits::block)
    train_forward_kernel(ListView<T> lists, const T* bias, Epilogue activation, Panels<const T> x,
                         Panels<T> y) {
  const std::int64_t lane = threadIdx.x % kWarp * TrainTraits::images;
  const T lower = activation.lower;
  const T upper = activation.upper;
  for_each_list(lists.count, x.count(), [&](std::int64_t row, std::int64_t panel) {
    Pair<T> sum = list_sum<T, kDense>(lists, row, x.panel(panel) + lane);
    const T b = bias[row];
#pragma unroll
    for (int i = 0; i < TrainTraits::images; ++i) {
      T value = sum.v[i] + b;
      value = value > lower ? value : lower;
      sum.v[i] = value < upper ? value : upper;
    }
    *reinterpret_cast<Pair<T>*>(y.panel(panel) + row * TrainTraits::width + lane) = sum;
  });
}

/// dx ← (lists · dz) where x lies between the bounds of the activation that made it, else 0.
template <class T, bool kDense>
__global__ void __launch_bounds__(TrainTraits::block)
    train_backward_data_kernel(ListView<T> lists, Panels<const T> dz, Epilogue activation,
                               Panels<const T> x, Panels<T> dx) {
  const std::int64_t lane = threadIdx.x % kWarp * TrainTraits::images;
  const T lower = activation.lower;
  const T upper = activation.upper;
  for_each_list(lists.count, dz.count(), [&](std::int64_t col, std::int64_t panel) {
    Pair<T> sum = list_sum<T, kDense>(lists, col, dz.panel(panel) + lane);
    const std::int64_t at = col * TrainTraits::width + lane;
    const Pair<T> made = load_pair(x.panel(panel) + at);
#pragma unroll
    for (int i = 0; i < TrainTraits::images; ++i) {
      if (!(made.v[i] > lower && made.v[i] < upper)) sum.v[i] = T{0};
    }
    *reinterpret_cast<Pair<T>*>(dx.panel(panel) + at) = sum;
  });
}

/// Gradients of `kCount` entries of one row from `k` on. `in[e]` and `out` point at the lane's
/// images of the entry's input and of the row, in panel 0.
template <class T, int kCount>
__device__ __forceinline__ void entry_gradients(const T* const (&in)[kCount], const T* out,
                                                std::int64_t panels, std::int64_t in_step,
                                                std::int64_t out_step, T* dvalues) {
  T sums[kCount] = {};
#pragma unroll 1
  for (std::int64_t p = 0; p < panels; ++p) {
    const Pair<T> dz = load_pair(out + p * out_step);
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      const Pair<T> x = load_pair(in[e] + p * in_step);
      sums[e] += dz.v[0] * x.v[0];
      sums[e] += dz.v[1] * x.v[1];
    }
  }
#pragma unroll
  for (int e = 0; e < kCount; ++e) {
    const T sum = warp_sum(sums[e]);
    if (threadIdx.x % kWarp == 0) dvalues[e] = sum;
  }
}

/// dvalues ← dz · xᵀ on the pattern, dbias ← the sums of dz. A block takes a row, a warp some of
/// its entries; grid of any size.
template <class T, bool kDense>
__global__ void __launch_bounds__(TrainTraits::block)
    train_backward_weights_kernel(ListView<T> lists, Panels<const T> dz, Panels<const T> x,
                                  T* dvalues, T* dbias) {
  constexpr int kEntries = TrainTraits::entries;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const std::int64_t lane = threadIdx.x % kWarp * TrainTraits::images;
  const std::int64_t panels = dz.count();
  const std::int64_t in_step = x.features * TrainTraits::width;
  const std::int64_t out_step = dz.features * TrainTraits::width;
  for (std::int64_t row = blockIdx.x; row < lists.count; row += gridDim.x) {
    const T* out = dz.data + row * TrainTraits::width + lane;
    const std::int64_t begin = kDense ? row * lists.first : lists.offsets[row];
    const std::int64_t end = kDense ? begin + lists.length : lists.offsets[row + 1];
    const auto input_of = [&](std::int64_t k) {
      const std::int64_t col = kDense ? k - begin : std::int64_t{lists.indices[k]};
      return x.data + col * TrainTraits::width + lane;
    };
    std::int64_t k = begin + std::int64_t{warp} * kEntries;
    for (; k + kEntries <= end; k += std::int64_t{TrainTraits::warps} * kEntries) {
      const T* const in[kEntries] = {input_of(k), input_of(k + 1), input_of(k + 2),
                                     input_of(k + 3)};
      entry_gradients(in, out, panels, in_step, out_step, dvalues + k);
    }
    for (; k < end; ++k) {  // fewer than kEntries are left, to one warp
      const T* const in[1] = {input_of(k)};
      entry_gradients(in, out, panels, in_step, out_step, dvalues + k);
    }
    if (warp != 0) continue;
    T sum = T{0};
#pragma unroll 1
    for (std::int64_t p = 0; p < panels; ++p) {
      const Pair<T> pair = load_pair(out + p * out_step);
      sum += pair.v[0];
      sum += pair.v[1];
    }
    sum = warp_sum(sum);
    if (threadIdx.x == 0) dbias[row] = sum;
  }
}

}  // namespace spdnn::cuda
