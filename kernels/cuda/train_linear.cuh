// Device code of training's sparse linear layers; mapping and costs are described in
// train_linear.cu.
#pragma once

#include "cuda/train_lanes.cuh"

namespace spdnn::cuda {

/// Lists of features and a weight for each: rows of W, or of its transpose.
template <class T>
struct ListView {
  const std::int64_t* offsets = nullptr;
  const std::uint32_t* indices = nullptr;
  const T* values = nullptr;
  std::int64_t count = 0;  ///< lists
};

/// Σ weight · in[feature] over list `index`; `in` points at the lane's images of feature 0.
template <class T>
__device__ __forceinline__ Pair<Wide<T>> list_sum(const ListView<T>& lists, std::int64_t index,
                                                  const T* in) {
  Pair<Wide<T>> sum{};
  const std::int64_t end = lists.offsets[index + 1];
#pragma unroll 4
  for (std::int64_t k = lists.offsets[index]; k < end; ++k) {
    const T* at = in + std::int64_t{lists.indices[k]} * TrainTraits::width;
    add_product(sum, lists.values[k], load_pair(at));
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
template <class T>
__global__ void __launch_bounds__(TrainTraits::block)
    train_forward_kernel(ListView<T> lists, const Wide<T>* bias, Epilogue activation,
                         Panels<const T> x, Panels<T> y) {
  const std::int64_t lane = threadIdx.x % kWarp * TrainTraits::images;
  for_each_list(lists.count, x.count(), [&](std::int64_t row, std::int64_t panel) {
    store_activated(list_sum(lists, row, x.panel(panel) + lane), bias[row], activation,
                    y.panel(panel) + row * TrainTraits::width + lane);
  });
}

/// dx ← (lists · dz) where x lies between the bounds of the activation that made it, else 0.
template <class T>
__global__ void __launch_bounds__(TrainTraits::block)
    train_backward_data_kernel(ListView<T> lists, Panels<const T> dz, Epilogue activation,
                               Panels<const T> x, Panels<T> dx) {
  const std::int64_t lane = threadIdx.x % kWarp * TrainTraits::images;
  for_each_list(lists.count, dz.count(), [&](std::int64_t col, std::int64_t panel) {
    const std::int64_t at = col * TrainTraits::width + lane;
    store_masked(list_sum(lists, col, dz.panel(panel) + lane), load_pair(x.panel(panel) + at),
                 activation, dx.panel(panel) + at);
  });
}

/// Adds the products of one row's gradients and the inputs of `kCount` entries. `in[e]` and `out`
/// point at the lane's images in panel 0.
template <class T, int kCount>
__device__ __forceinline__ void add_gradients(Wide<T> (&sums)[kCount], const T* const (&in)[kCount],
                                              const T* out, std::int64_t panels,
                                              std::int64_t in_step, std::int64_t out_step) {
#pragma unroll 1
  for (std::int64_t p = 0; p < panels; ++p) {
    const Pair<Wide<T>> dz = load_pair(out + p * out_step);
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      const Pair<Wide<T>> x = load_pair(in[e] + p * in_step);
      sums[e] += dz.v[0] * x.v[0];
      sums[e] += dz.v[1] * x.v[1];
    }
  }
}

/// gradient.values ← dz · xᵀ on the pattern, gradient.bias ← the sums of dz. A block takes a row, a
/// warp 8 of its entries at a time, past the row's end its last one again; the last warp, which has
/// the least to do, takes the bias. Grid of any size.
template <class T>
__global__ void __launch_bounds__(TrainTraits::block)
    train_backward_weights_kernel(ListView<T> lists, Panels<const T> dz, Panels<const T> x,
                                  ParameterGradient<T> gradient) {
  constexpr int kEntries = TrainTraits::entries;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const int thread = static_cast<int>(threadIdx.x % kWarp);
  const std::int64_t lane = std::int64_t{thread} * TrainTraits::images;
  const std::int64_t panels = dz.count();
  const std::int64_t in_step = x.features * TrainTraits::width;
  const std::int64_t out_step = dz.features * TrainTraits::width;
  for (std::int64_t row = blockIdx.x; row < lists.count; row += gridDim.x) {
    const T* out = dz.data + row * TrainTraits::width + lane;
    const std::int64_t end = lists.offsets[row + 1];
    for (std::int64_t k = lists.offsets[row] + std::int64_t{warp} * kEntries; k < end;
         k += std::int64_t{TrainTraits::warps} * kEntries) {
      const T* in[kEntries];
#pragma unroll
      for (int e = 0; e < kEntries; ++e) {
        const std::int64_t entry = k + e < end ? k + e : end - 1;
        in[e] = x.data + std::int64_t{lists.indices[entry]} * TrainTraits::width + lane;
      }
      Wide<T> sums[kEntries] = {};
      add_gradients<T, kEntries>(sums, in, out, panels, in_step, out_step);
      const Wide<T> sum = warp_sums(sums);
      const int held = sum_held_by<kEntries>(thread);
      if (thread % (kWarp / kEntries) == 0 && k + held < end) {
        put_sum(sum, gradient.adds_up, gradient.values + k + held);
      }
    }
    if (warp != TrainTraits::warps - 1) continue;
    Wide<T> sum[1] = {};
#pragma unroll 1
    for (std::int64_t p = 0; p < panels; ++p) {
      const Pair<Wide<T>> pair = load_pair(out + p * out_step);
      sum[0] += pair.v[0];
      sum[0] += pair.v[1];
    }
    const Wide<T> bias = warp_sums(sum);
    if (thread == 0) put_sum(bias, gradient.adds_up, gradient.bias + row);
  }
}

}  // namespace spdnn::cuda
