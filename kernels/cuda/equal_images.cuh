// Device code that finds equal images: hashes of all features, a table from hash to the lowest slot
// that has it, and an exact comparison with that slot.
#pragma once

#include "cuda/panel.cuh"

namespace spdnn::cuda {

struct EqualTraits {
  static constexpr int block = 256;  ///< threads
  static constexpr int warps = block / kWarp;
  static constexpr int features_per_block = 128;  ///< of one panel
  static_assert(block % kWarp == 0 && block <= 1024);
};

/// 64-bit words that atomics take.
using HashWord = unsigned long long;

inline constexpr std::int32_t kNoSlot = 0x7fffffff;

/// What the kernels share. `table` has a power of two of slots, more than images.
struct EqualArgs {
  Panels<const float> x;
  const std::uint8_t* alive = nullptr;
  std::int32_t* first = nullptr;
  HashWord* hashes = nullptr;     ///< x.batch, zeroed
  std::int32_t* table = nullptr;  ///< `table_slots`
  std::int64_t table_slots = 0;
  HashWord hash_mask = ~HashWord{0};  ///< fewer bits make hashes collide, for tests
  [[nodiscard]] __device__ bool counts(std::int64_t slot) const {
    return alive == nullptr || alive[slot] != 0;
  }
};

/// A bijection of 64-bit words in which every input bit reaches every output bit.
__device__ __forceinline__ HashWord mix_bits(HashWord word) {
  word = (word ^ (word >> 32)) * 0xd6e8feb86659fd93ULL;
  word = (word ^ (word >> 32)) * 0xd6e8feb86659fd93ULL;
  return word ^ (word >> 32);
}

/// Calls `body(image, values, first, last)` for every image there is and run of features: `values`
/// is its feature 0, those of a panel's next feature `x.width` further. Grid of any size; a warp
/// takes every eighth feature of a run, its lanes neighbouring images.
template <class Body>
__device__ __forceinline__ void for_each_run(const Panels<const float>& x, const Body& body) {
  constexpr std::int64_t kFeatures = EqualTraits::features_per_block;
  const std::int64_t lane = threadIdx.x % kWarp;
  const std::int64_t warp = threadIdx.x / kWarp;
  const std::int64_t live = live_images(x);
  const std::int64_t groups = (x.features + kFeatures - 1) / kFeatures;
  for (std::int64_t item = blockIdx.x; item < live_panels(x) * groups; item += gridDim.x) {
    const std::int64_t panel = item / groups;
    const std::int64_t first = item % groups * kFeatures + warp;
    const std::int64_t end = (item % groups + 1) * kFeatures;
    const std::int64_t last = end < x.features ? end : x.features;
    for (std::int64_t slot = lane; slot < x.width; slot += kWarp) {
      const std::int64_t image = panel * x.width + slot;
      if (image < live) body(image, x.panel(panel) + slot, first, last);
    }
  }
}

__device__ __forceinline__ unsigned bits_of(const float* at) {
  return __ldg(reinterpret_cast<const unsigned*>(at));
}

/// Every place of the table ← none. Grid of any size.
inline __global__ void __launch_bounds__(EqualTraits::block) empty_table_kernel(EqualArgs args) {
  const std::int64_t threads = std::int64_t{gridDim.x} * EqualTraits::block;
  for (std::int64_t place = std::int64_t{blockIdx.x} * EqualTraits::block + threadIdx.x;
       place < args.table_slots; place += threads) {
    args.table[place] = kNoSlot;
  }
}

/// hashes[image] += a mix of each feature and its bits: a sum, so that any order gives the same.
inline __global__ void __launch_bounds__(EqualTraits::block) hash_images_kernel(EqualArgs args) {
  const Panels<const float>& x = args.x;
  for_each_run(x, [&](std::int64_t image, const float* values, std::int64_t f, std::int64_t last) {
    if (!args.counts(image)) return;
    HashWord sum = 0;
    for (; f < last; f += EqualTraits::warps) {
      sum += mix_bits(static_cast<HashWord>(f + 1) << 32 | bits_of(values + f * x.width));
    }
    atomicAdd(args.hashes + image, sum);
  });
}

/// The place of a hash in the table: where it stands or where it belongs.
__device__ __forceinline__ std::int64_t next_place(const EqualArgs& args, std::int64_t place) {
  return (place + 1) & (args.table_slots - 1);
}

/// Enters every image, so that a hash's place holds the lowest slot that has it. Grid of any size;
/// a thread takes an image. What stands at a place changes only to a lower slot of the same hash.
inline __global__ void __launch_bounds__(EqualTraits::block) enter_images_kernel(EqualArgs args) {
  const std::int64_t live = live_images(args.x);
  const std::int64_t threads = std::int64_t{gridDim.x} * EqualTraits::block;
  for (std::int64_t image = std::int64_t{blockIdx.x} * EqualTraits::block + threadIdx.x;
       image < live; image += threads) {
    if (!args.counts(image)) continue;
    const HashWord hash = args.hashes[image] & args.hash_mask;
    const auto slot = static_cast<std::int32_t>(image);
    auto place = static_cast<std::int64_t>(hash & static_cast<HashWord>(args.table_slots - 1));
    for (;; place = next_place(args, place)) {
      const std::int32_t held = atomicCAS(args.table + place, kNoSlot, slot);
      if (held == kNoSlot) break;
      if ((args.hashes[held] & args.hash_mask) != hash) continue;
      atomicMin(args.table + place, slot);
      break;
    }
  }
}

/// first[image] ← the lowest slot of its hash; itself where it does not count.
inline __global__ void __launch_bounds__(EqualTraits::block) look_up_kernel(EqualArgs args) {
  const std::int64_t live = live_images(args.x);
  const std::int64_t threads = std::int64_t{gridDim.x} * EqualTraits::block;
  for (std::int64_t image = std::int64_t{blockIdx.x} * EqualTraits::block + threadIdx.x;
       image < live; image += threads) {
    std::int32_t found = static_cast<std::int32_t>(image);
    if (args.counts(image)) {
      const HashWord hash = args.hashes[image] & args.hash_mask;
      auto place = static_cast<std::int64_t>(hash & static_cast<HashWord>(args.table_slots - 1));
      while ((args.hashes[args.table[place]] & args.hash_mask) != hash) {
        place = next_place(args, place);
      }
      found = args.table[place];
    }
    args.first[image] = found;
  }
}

/// Takes an image's first back where the two differ in a bit. Blocks that meet write the same.
inline __global__ void __launch_bounds__(EqualTraits::block) compare_images_kernel(EqualArgs args) {
  const Panels<const float>& x = args.x;
  for_each_run(x, [&](std::int64_t image, const float* values, std::int64_t f, std::int64_t last) {
    volatile std::int32_t* const at = args.first + image;
    const std::int64_t other = *at;
    if (other == image) return;
    const float* others = x.panel(other / x.width) + other % x.width;
    bool differs = false;
    for (; f < last && !differs; f += EqualTraits::warps) {
      differs = bits_of(values + f * x.width) != bits_of(others + f * x.width);
    }
    if (differs) *at = static_cast<std::int32_t>(image);
  });
}

struct UnchangedArgs {
  Panels<const float> x;
  Panels<const float> y;
  std::uint8_t* unchanged = nullptr;
};

/// 1 for every image there is, 0 past them. Grid of any size; a thread takes an image.
inline __global__ void __launch_bounds__(EqualTraits::block)
    assume_unchanged_kernel(UnchangedArgs args) {
  const std::int64_t live = live_images(args.x);
  const std::int64_t threads = std::int64_t{gridDim.x} * EqualTraits::block;
  for (std::int64_t image = std::int64_t{blockIdx.x} * EqualTraits::block + threadIdx.x;
       image < args.x.batch; image += threads) {
    args.unchanged[image] = image < live ? 1 : 0;
  }
}

/// Clears the flags of images that differ in a bit. Blocks that meet write the same.
inline __global__ void __launch_bounds__(EqualTraits::block)
    clear_changed_kernel(UnchangedArgs args) {
  const Panels<const float>& x = args.x;
  for_each_run(x, [&](std::int64_t image, const float* values, std::int64_t f, std::int64_t last) {
    const float* others = args.y.panel(image / x.width) + image % x.width;
    bool differs = false;
    for (; f < last && !differs; f += EqualTraits::warps) {
      differs = bits_of(values + f * x.width) != bits_of(others + f * x.width);
    }
    volatile std::uint8_t* const flag = args.unchanged + image;
    if (differs) *flag = 0;
  });
}

}  // namespace spdnn::cuda
