// Device code that takes rows of panels into messages and out of them.
#pragma once

#include "cuda/panel.cuh"
#include "spdnn/message_op.hpp"

namespace spdnn::cuda {

struct MessageTraits {
  /// Threads. That one block an SM will do keeps the compiler from spilling for the sake of more.
  static constexpr int block = 256;
  static constexpr int warps = block / kWarp;
  static constexpr int rows = 32;  ///< of the list, in one panel, that a block takes at once
  static_assert(block % kWarp == 0 && block <= 1024 && rows % warps == 0);
};

/// A warp's place: a row of the list and a panel, whose lanes it takes 32 at a time.
struct RowPlace {
  std::int64_t row, panel, first;  ///< first: the panel's first image
};

/// Calls `body(place)` for the rows and panels of this warp. Grid of any size.
template <class Body>
__device__ __forceinline__ void for_each_place(std::int64_t rows, std::int64_t panels,
                                               std::int64_t width, const Body& body) {
  constexpr std::int64_t kRows = MessageTraits::rows;
  const std::int64_t groups = (rows + kRows - 1) / kRows;
  for (std::int64_t item = blockIdx.x; item < panels * groups; item += gridDim.x) {
    const std::int64_t panel = item / groups;
    const std::int64_t first = item % groups * kRows;
    const std::int64_t last = first + kRows < rows ? first + kRows : rows;
#pragma unroll 4
    for (std::int64_t row = first + threadIdx.x / kWarp; row < last; row += MessageTraits::warps) {
      body(RowPlace{row, panel, panel * width});
    }
  }
}

template <class T>
__global__ void __launch_bounds__(MessageTraits::block, 1) pack_kernel(PackArgs<T> args) {
  const Panels<const T>& x = args.x;
  for_each_place(args.count, x.count(), x.width, [&](const RowPlace& at) {
    const T* from = x.panel(at.panel) + std::int64_t{args.rows[at.row]} * x.width;
    T* to = args.message + at.row * x.batch + at.first;
    for (std::int64_t lane = threadIdx.x % kWarp; lane < x.width; lane += kWarp) {
      if (at.first + lane < x.batch) to[lane] = from[lane];
    }
  });
}

template <class T>
__global__ void __launch_bounds__(MessageTraits::block, 1) unpack_kernel(UnpackArgs<T> args) {
  const Panels<T>& x = args.x;
  for_each_place(args.count, x.count(), x.width, [&](const RowPlace& at) {
    const T* from = args.message + at.row * x.batch + at.first;
    T* to = x.panel(at.panel) + std::int64_t{args.rows[at.row]} * x.width;
    for (std::int64_t lane = threadIdx.x % kWarp; lane < x.width; lane += kWarp) {
      to[lane] = at.first + lane < x.batch ? from[lane] : T{0};
    }
  });
}

/// One thread owns a row's image: the order of its sum is that of the list.
template <class T>
__global__ void __launch_bounds__(MessageTraits::block, 1)
    add_message_kernel(AddMessageArgs<T> args) {
  const Panels<T>& x = args.x;
  for_each_place(args.count, x.count(), x.width, [&](const RowPlace& at) {
    T* to = x.panel(at.panel) + std::int64_t{args.rows[at.row]} * x.width;
    const std::uint32_t begin = args.offsets[at.row];
    const std::uint32_t end = args.offsets[at.row + 1];
    for (std::int64_t lane = threadIdx.x % kWarp; lane < x.width; lane += kWarp) {
      if (at.first + lane >= x.batch) continue;
      Wide<T> sum = to[lane];
      for (std::uint32_t k = begin; k < end; ++k) {
        sum += args.message[std::int64_t{args.sources[k]} * x.batch + at.first + lane];
      }
      to[lane] = T(sum);
    }
  });
}

template <class T>
__global__ void __launch_bounds__(MessageTraits::block, 1) copy_rows_kernel(CopyRowsArgs<T> args) {
  const Panels<const T>& x = args.from;
  for_each_place(args.count, x.count(), x.width, [&](const RowPlace& at) {
    const T* from = x.panel(at.panel) + std::int64_t{args.from_rows[at.row]} * x.width;
    T* to = args.to.panel(at.panel) + std::int64_t{args.to_rows[at.row]} * x.width;
    for (std::int64_t lane = threadIdx.x % kWarp; lane < x.width; lane += kWarp) {
      to[lane] = from[lane];
    }
  });
}

}  // namespace spdnn::cuda
