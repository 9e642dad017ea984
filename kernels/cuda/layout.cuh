// Device code that moves activations: sparse images into panels, living images together.
#pragma once

#include "cuda/panel.cuh"

namespace spdnn::cuda {

struct LayoutTraits {
  static constexpr int block = 256;  ///< threads
  static constexpr int warps = block / kWarp;
  static constexpr int features_per_block = 128;  ///< of one panel, in `move_images_kernel`
  static_assert(block % kWarp == 0 && block <= 1024);
};

/// Scatters the nonzeros of sparse images into zeroed panels. Grid of any size; a warp takes an
/// image, its lanes the entries.
template <class Index>
__global__ void __launch_bounds__(LayoutTraits::block)
    expand_kernel(CsrView images, Panels<float> y) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const auto* cols = static_cast<const Index*>(images.col_indices);
  const auto* values = static_cast<const float*>(images.values);
  const std::int64_t warps = std::int64_t{gridDim.x} * LayoutTraits::warps;
  for (std::int64_t image = std::int64_t{blockIdx.x} * LayoutTraits::warps + threadIdx.x / kWarp;
       image < images.rows; image += warps) {
    const std::int64_t end = images.row_begin(image + 1);
    for (std::int64_t k = images.row_begin(image) + lane; k < end; k += kWarp) {
      y.at(std::int64_t{cols[k]}, image) = values[images.shared_value ? 0 : k];
    }
  }
}

/// 1 for a slot that holds a living image; 0 for a dead one and past the images really there.
struct LivingFlag {
  const std::uint8_t* alive = nullptr;
  Panels<const float> x;
  __device__ std::int32_t operator()(std::int32_t slot) const {
    return slot < live_images(x) && alive[slot] != 0 ? 1 : 0;
  }
};

/// What becomes of the images of x; see `CompactArgs`. `ranks[s]` are the living images before slot
/// s, for s from 0 to x.batch, so a slot is living where the next rank is higher.
struct MapArgs {
  Panels<const float> x;
  const std::int32_t* ranks = nullptr;
  const std::int32_t* ids = nullptr;
  bool keep_representative = false;
  std::int32_t* parent = nullptr;
  std::int32_t* representative = nullptr;  ///< out: id of the first dead image, where it is kept
  std::int32_t* source = nullptr;          ///< out: the slot each kept image comes from
  std::int32_t* ids_out = nullptr;         ///< of the first image kept
  std::int32_t* live_out = nullptr;
};

/// Grid of any size; a thread takes a slot. A living image goes to its rank, one further where a
/// dead one is kept before it (rank < slot); the first dead image is the one whose rank is its
/// slot, and stays there.
inline __global__ void __launch_bounds__(LayoutTraits::block) map_images_kernel(MapArgs args) {
  const std::int64_t count = live_images(args.x);
  const std::int64_t first = std::int64_t{blockIdx.x} * LayoutTraits::block + threadIdx.x;
  const std::int64_t threads = std::int64_t{gridDim.x} * LayoutTraits::block;
  for (std::int64_t slot = first; slot < count; slot += threads) {
    const std::int32_t rank = args.ranks[slot];
    const bool is_living = args.ranks[slot + 1] > rank;
    const bool is_representative = args.keep_representative && !is_living && rank == slot;
    if (is_representative) *args.representative = args.ids[slot];
    if (!is_living && !is_representative) continue;
    const std::int32_t to = rank + (args.keep_representative && rank < slot ? 1 : 0);
    args.source[to] = static_cast<std::int32_t>(slot);
    args.ids_out[to] = args.ids[slot];
  }
  if (first == 0) {
    const std::int32_t living = args.ranks[args.x.batch];
    *args.live_out = living + (args.keep_representative && living < count ? 1 : 0);
  }
}

/// Every dead image but the representative gets it as its parent. Grid of any size; a thread takes
/// a slot.
inline __global__ void __launch_bounds__(LayoutTraits::block) merge_dead_kernel(MapArgs args) {
  const std::int64_t count = live_images(args.x);
  const std::int64_t threads = std::int64_t{gridDim.x} * LayoutTraits::block;
  for (std::int64_t slot = std::int64_t{blockIdx.x} * LayoutTraits::block + threadIdx.x;
       slot < count; slot += threads) {
    const std::int32_t rank = args.ranks[slot];
    const bool is_dead = args.ranks[slot + 1] == rank;
    if (is_dead && rank < slot) args.parent[args.ids[slot]] = *args.representative;
  }
}

/// The images to move: y's image first_out + i ← x's image source[i], for i below `*kept`.
struct MoveArgs {
  Panels<const float> x;
  Panels<float> y;
  std::int64_t first_out = 0;
  const std::int32_t* source = nullptr;
  const std::int32_t* kept = nullptr;
};

/// Grid of any size; a block takes some features of a panel of y, a warp's lanes neighbouring
/// images. Any panel width.
inline __global__ void __launch_bounds__(LayoutTraits::block) move_images_kernel(MoveArgs args) {
  constexpr std::int64_t kFeatures = LayoutTraits::features_per_block;
  const Panels<const float>& x = args.x;
  const Panels<float>& y = args.y;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const std::int64_t end = args.first_out + *args.kept;
  const std::int64_t first_panel = args.first_out / y.width;
  const std::int64_t panels = (end + y.width - 1) / y.width - first_panel;
  const std::int64_t groups = (x.features + kFeatures - 1) / kFeatures;
  for (std::int64_t item = blockIdx.x; item < panels * groups; item += gridDim.x) {
    const std::int64_t panel = first_panel + item / groups;
    const std::int64_t first = item % groups * kFeatures;
    const std::int64_t last = first + kFeatures < x.features ? first + kFeatures : x.features;
    for (std::int64_t slot = lane; slot < y.width; slot += kWarp) {
      const std::int64_t image = panel * y.width + slot;
      if (image < args.first_out || image >= end) continue;
      const std::int64_t from = args.source[image - args.first_out];
      const float* in = x.panel(from / x.width) + from % x.width;
      float* out = y.panel(panel) + slot;
#pragma unroll 4
      for (std::int64_t f = first + warp; f < last; f += LayoutTraits::warps) {
        out[f * y.width] = in[f * x.width];
      }
    }
  }
}

}  // namespace spdnn::cuda
