// Device code of training's dense linear layers; mapping and costs are described in train_dense.cu.
#pragma once

#include "cuda/train_lanes.cuh"

namespace spdnn::cuda {

struct TrainDenseTraits {
  static constexpr int rows = 8;    ///< whose sums a block finds together: one for each warp to end
  static constexpr int chunk = 32;  ///< weights of a row that a warp stages at a time, one a lane
  static constexpr int pitch = rows + 4;  ///< of staged weights; spreads them over banks
  static constexpr int tile = 4;          ///< rows, and columns, whose gradients a warp finds
  static_assert(rows == TrainTraits::warps && chunk == kWarp);
  /// Shared memory of a block: the warps' weights, later their sums.
  template <class T>
  static constexpr std::size_t shared_bytes = TrainTraits::warps * sizeof(T) *
                                              (chunk * pitch > rows * TrainTraits::width
                                                   ? chunk * pitch
                                                   : rows * TrainTraits::width);
};

/// What one load of shared memory brings.
template <class T>
struct alignas(16) Vector {
  static constexpr int size = 16 / static_cast<int>(sizeof(T));
  T v[size];
};

/// Rows of W, or of its transpose: weight (row, k) stands at row · first + k · stride, and one of
/// the two is 1.
template <class T>
struct DenseView {
  const T* values = nullptr;
  std::int64_t rows = 0, length = 0;
  std::int64_t first = 0, stride = 1;
};

/// Copies weights (row .. row + 7, k .. k + 31) to `staged`, those of one k side by side, with
/// zeros outside of the matrix. Lanes read neighbours in memory.
template <class T>
__device__ __forceinline__ void stage_weights(Wide<T>* staged, const DenseView<T>& w,
                                              std::int64_t row, std::int64_t k, int lane) {
  constexpr int kRows = TrainDenseTraits::rows;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int r = w.stride == 1 ? i : lane % kRows;
    const int at = w.stride == 1 ? lane : i * (kWarp / kRows) + lane / kRows;
    const bool inside = row + r < w.rows && k + at < w.length;
    staged[at * TrainDenseTraits::pitch + r] =
        inside ? Wide<T>(w.values[(row + r) * w.first + (k + at) * w.stride]) : Wide<T>{0};
  }
}

/// Σ weight · in[k] over this warp's part of all k, for 8 rows; `in` points at the lane's images of
/// feature 0. The part is each eighth chunk.
template <class T>
__device__ __forceinline__ void add_rows(Pair<Wide<T>> (&sums)[TrainDenseTraits::rows],
                                         Wide<T>* staged, const DenseView<T>& w, std::int64_t row,
                                         const T* in) {
  constexpr int kChunk = TrainDenseTraits::chunk;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (std::int64_t k = std::int64_t{threadIdx.x / kWarp} * kChunk; k < w.length;
       k += std::int64_t{TrainTraits::warps} * kChunk) {
    __syncwarp();  // before these weights replace the last ones
    stage_weights(staged, w, row, k, lane);
    __syncwarp();
    const int count = w.length - k < kChunk ? static_cast<int>(w.length - k) : kChunk;
#pragma unroll 4
    for (int i = 0; i < count; ++i) {
      const Pair<Wide<T>> x = load_pair(in + (k + i) * TrainTraits::width);
#pragma unroll
      for (int r = 0; r < TrainDenseTraits::rows; r += Vector<Wide<T>>::size) {
        const auto weights =
            *reinterpret_cast<const Vector<Wide<T>>*>(staged + i * TrainDenseTraits::pitch + r);
#pragma unroll
        for (int e = 0; e < Vector<Wide<T>>::size; ++e) add_product(sums[r + e], weights.v[e], x);
      }
    }
  }
}

/// Calls `store(row, panel, sum)` for every row and panel, with the product of W's row and the
/// lane's images of `x`. Items are groups of rows of a panel; grid of any size.
template <class T, class Store>
__device__ __forceinline__ void dense_products(const DenseView<T>& w, const Panels<const T>& x,
                                               const Store& store) {
  constexpr int kRows = TrainDenseTraits::rows;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const std::int64_t lane = threadIdx.x % kWarp * TrainTraits::images;
  auto* shared = dynamic_shared<Wide<T>>();
  const std::int64_t groups = (w.rows + kRows - 1) / kRows;
  for (std::int64_t item = blockIdx.x; item < groups * x.count(); item += gridDim.x) {
    const std::int64_t first = item % groups * kRows;
    const std::int64_t panel = item / groups;
    Pair<Wide<T>> sums[kRows] = {};
    add_rows(sums, shared + warp * TrainDenseTraits::chunk * TrainDenseTraits::pitch, w, first,
             x.panel(panel) + lane);
    __syncthreads();  // before sums replace the weights
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      store_pair(shared + (warp * kRows + r) * TrainTraits::width + lane, sums[r]);
    }
    __syncthreads();
    Pair<Wide<T>> sum{};
#pragma unroll
    for (int part = 0; part < TrainTraits::warps; ++part) {
      const Pair<Wide<T>> of =
          load_pair(shared + (part * kRows + warp) * TrainTraits::width + lane);
      sum.v[0] += of.v[0];
      sum.v[1] += of.v[1];
    }
    if (first + warp < w.rows) store(first + warp, panel, sum);
    __syncthreads();  // before the next weights replace the sums
  }
}

/// y ← h(W · x + b).
template <class T>
__global__ void __launch_bounds__(TrainTraits::block, 1)
    train_dense_forward_kernel(DenseView<T> w, const Wide<T>* bias, Epilogue activation,
                               Panels<const T> x, Panels<T> y) {
  const std::int64_t lane = threadIdx.x % kWarp * TrainTraits::images;
  dense_products(w, x, [&](std::int64_t row, std::int64_t panel, Pair<Wide<T>> sum) {
    store_activated(sum, bias[row], activation, y.panel(panel) + row * TrainTraits::width + lane);
  });
}

/// dx ← Wᵀ · dz where x lies between the bounds of the activation that made it, else 0.
template <class T>
__global__ void __launch_bounds__(TrainTraits::block, 1)
    train_dense_backward_data_kernel(DenseView<T> w, Panels<const T> dz, Epilogue activation,
                                     Panels<const T> x, Panels<T> dx) {
  const std::int64_t lane = threadIdx.x % kWarp * TrainTraits::images;
  dense_products(w, dz, [&](std::int64_t col, std::int64_t panel, Pair<Wide<T>> sum) {
    const std::int64_t at = col * TrainTraits::width + lane;
    store_masked(sum, load_pair(x.panel(panel) + at), activation, dx.panel(panel) + at);
  });
}

/// gradient.values ← dz · xᵀ, gradient.bias ← the sums of dz. A warp owns a tile of 4 × 4
/// gradients, and of the first columns the biases; past the edge of the matrix the last row or
/// column stands in. Grid of any size.
template <class T>
__global__ void __launch_bounds__(TrainTraits::block)
    train_dense_backward_weights_kernel(std::int64_t rows, std::int64_t cols, Panels<const T> dz,
                                        Panels<const T> x, ParameterGradient<T> gradient) {
  constexpr int kTile = TrainDenseTraits::tile;
  const int thread = static_cast<int>(threadIdx.x % kWarp);
  const std::int64_t lane = std::int64_t{thread} * TrainTraits::images;
  const std::int64_t across = (cols + kTile - 1) / kTile;
  const std::int64_t items = (rows + kTile - 1) / kTile * across;
  const std::int64_t warps = std::int64_t{gridDim.x} * TrainTraits::warps;
  for (std::int64_t item = std::int64_t{blockIdx.x} * TrainTraits::warps + threadIdx.x / kWarp;
       item < items; item += warps) {
    const std::int64_t row = item / across * kTile;
    const std::int64_t col = item % across * kTile;
    Wide<T> sums[kTile * kTile] = {};
    Wide<T> bias[kTile] = {};
#pragma unroll 1
    for (std::int64_t p = 0; p < x.count(); ++p) {
      Pair<Wide<T>> in[kTile];
#pragma unroll
      for (int c = 0; c < kTile; ++c) {
        const std::int64_t feature = col + c < cols ? col + c : cols - 1;
        in[c] = load_pair(x.panel(p) + feature * TrainTraits::width + lane);
      }
#pragma unroll
      for (int r = 0; r < kTile; ++r) {
        const std::int64_t feature = row + r < rows ? row + r : rows - 1;
        const Pair<Wide<T>> slope = load_pair(dz.panel(p) + feature * TrainTraits::width + lane);
#pragma unroll
        for (int c = 0; c < kTile; ++c) {
          sums[r * kTile + c] += slope.v[0] * in[c].v[0];
          sums[r * kTile + c] += slope.v[1] * in[c].v[1];
        }
        bias[r] += slope.v[0];
        bias[r] += slope.v[1];
      }
    }
    const int own = sum_held_by<kTile * kTile>(thread);
    const Wide<T> sum = warp_sums(sums);
    if (thread % (kWarp / (kTile * kTile)) == 0 && row + own / kTile < rows &&
        col + own % kTile < cols) {
      put_sum(sum, gradient.adds_up,
              gradient.values + (row + own / kTile) * cols + col + own % kTile);
    }
    if (col > 0) continue;
    const Wide<T> of_row = warp_sums(bias);
    const int held = sum_held_by<kTile>(thread);
    if (thread % (kWarp / kTile) == 0 && row + held < rows) {
      put_sum(of_row, gradient.adds_up, gradient.bias + row + held);
    }
  }
}

}  // namespace spdnn::cuda
