// Device code that finds the `wanted` largest of many keys, of equal ones the first, and takes them
// in the order in which they stand; mapping and costs are described in rewire.cu.
#pragma once

#include "cuda/device_code.cuh"

namespace spdnn::cuda {

struct SelectTraits {
  static constexpr int block = 256;  ///< threads
  static constexpr int warps = block / kWarp;
  static constexpr int digit_bits = 8;
  static constexpr int bins = 1 << digit_bits;
  static constexpr std::int64_t chunk = 1024;  ///< keys that a warp counts and takes
  static_assert(bins == block, "a thread a bin");
  static_assert(chunk % kWarp == 0 && block % kWarp == 0 && block <= 1024);
};

/// Keys in two arrays, one after the other; fewer than 2³² of them.
struct Keys {
  const std::uint32_t* first = nullptr;
  std::int64_t first_count = 0;
  const std::uint32_t* second = nullptr;
  std::int64_t second_count = 0;
  [[nodiscard]] SPDNN_HOST_DEVICE std::int64_t count() const { return first_count + second_count; }
  __device__ std::uint32_t operator[](std::int64_t i) const {
    return i < first_count ? first[i] : second[i - first_count];
  }
};

/// Which keys are taken: those above `bar`, and the first `equal` of those that are equal to it.
struct Selection {
  std::uint32_t bar = 0;
  unsigned equal = 0;
  unsigned histogram[SelectTraits::bins];
  std::int64_t all_equal;  ///< keys that are equal to the bar
};

/// Keys of one chunk, or of all chunks before it.
struct ChunkCount {
  unsigned above = 0, equal = 0;
};

/// The first item of this thread, and how far its next one is: a thread an item, grid of any size.
__device__ __forceinline__ std::int64_t thread_item() {
  return std::int64_t{blockIdx.x} * SelectTraits::block + threadIdx.x;
}
__device__ __forceinline__ std::int64_t thread_step() {
  return std::int64_t{gridDim.x} * SelectTraits::block;
}
/// The same for a warp an item.
__device__ __forceinline__ std::int64_t warp_item() {
  return std::int64_t{blockIdx.x} * SelectTraits::warps + threadIdx.x / kWarp;
}
__device__ __forceinline__ std::int64_t warp_step() {
  return std::int64_t{gridDim.x} * SelectTraits::warps;
}

/// What the threads before this one have together, and at `*all` what all have; `shared` has room
/// for a number of each. All threads of the block meet here.
__device__ __forceinline__ unsigned sum_before(unsigned mine, unsigned* shared, unsigned* all) {
  shared[threadIdx.x] = mine;
  __syncthreads();
#pragma unroll 1
  for (unsigned apart = 1; apart < SelectTraits::block; apart *= 2) {
    const unsigned before = threadIdx.x >= apart ? shared[threadIdx.x - apart] : 0;
    __syncthreads();
    shared[threadIdx.x] += before;
    __syncthreads();
  }
  *all = shared[SelectTraits::block - 1];
  const unsigned before = shared[threadIdx.x] - mine;
  __syncthreads();
  return before;
}

/// One block: nothing is counted yet, and the bar is what is known of it.
inline __global__ void __launch_bounds__(SelectTraits::block)
    begin_selection_kernel(Selection* selection, std::uint32_t bar, unsigned equal) {
  selection->histogram[threadIdx.x] = 0;
  if (threadIdx.x == 0) {
    selection->bar = bar;
    selection->equal = equal;
  }
}

/// Counts the digits at `shift` of the keys whose higher digits are the bar's. Grid of any size.
inline __global__ void __launch_bounds__(SelectTraits::block)
    count_digits_kernel(Keys keys, Selection* selection, int shift) {
  __shared__ unsigned bins[SelectTraits::bins];
  bins[threadIdx.x] = 0;
  __syncthreads();
  const int above = shift + SelectTraits::digit_bits;
  const std::uint32_t known = above < 32 ? ~std::uint32_t{0} << above : 0;
  const std::uint32_t bar = selection->bar;
  const std::int64_t count = keys.count();
#pragma unroll 4
  for (std::int64_t i = thread_item(); i < count; i += thread_step()) {
    const std::uint32_t key = keys[i];
    if ((key & known) == bar) atomicAdd(&bins[(key >> shift) % SelectTraits::bins], 1U);
  }
  __syncthreads();
  if (bins[threadIdx.x] > 0) atomicAdd(&selection->histogram[threadIdx.x], bins[threadIdx.x]);
}

/// One block: the bar's digit is the one that the last key to be taken has; `equal` becomes how
/// many with that digit are taken. Empties the histogram for the next digit.
inline __global__ void __launch_bounds__(SelectTraits::block)
    choose_digit_kernel(Selection* selection, int shift) {
  __shared__ unsigned sums[SelectTraits::block];
  const unsigned digit = SelectTraits::bins - 1 - threadIdx.x;  // the largest first
  const unsigned mine = selection->histogram[digit];
  const unsigned wanted = selection->equal;
  selection->histogram[digit] = 0;
  unsigned all = 0;
  const unsigned larger = sum_before(mine, sums, &all);
  if (larger < wanted && wanted - larger <= mine) {
    selection->bar |= digit << shift;
    selection->equal = wanted - larger;
  }
}

/// counts[c] ← the keys of chunk c, by how they compare with the bar. Grid of any size; a warp a
/// chunk.
inline __global__ void __launch_bounds__(SelectTraits::block)
    count_chunks_kernel(Keys keys, const Selection* selection, ChunkCount* counts,
                        std::int64_t chunks) {
  const std::uint32_t bar = selection->bar;
  const std::int64_t lane = threadIdx.x % kWarp;
  for (std::int64_t chunk = warp_item(); chunk < chunks; chunk += warp_step()) {
    const std::int64_t begin = chunk * SelectTraits::chunk;
    const std::int64_t end =
        begin + SelectTraits::chunk < keys.count() ? begin + SelectTraits::chunk : keys.count();
    ChunkCount mine;
#pragma unroll 4
    for (std::int64_t i = begin + lane; i < end; i += kWarp) {
      const std::uint32_t key = keys[i];
      mine.above += key > bar ? 1 : 0;
      mine.equal += key == bar ? 1 : 0;
    }
#pragma unroll
    for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
      mine.above += __shfl_xor_sync(kFullWarp, mine.above, lanes);
      mine.equal += __shfl_xor_sync(kFullWarp, mine.equal, lanes);
    }
    if (lane == 0) counts[chunk] = mine;
  }
}

/// One block: counts[c] ← those of all chunks before c. A thread takes a run of chunks.
inline __global__ void __launch_bounds__(SelectTraits::block)
    sum_chunks_kernel(Selection* selection, ChunkCount* counts, std::int64_t chunks) {
  __shared__ unsigned sums[SelectTraits::block];
  const std::int64_t each = (chunks + SelectTraits::block - 1) / SelectTraits::block;
  const std::int64_t begin = each * threadIdx.x < chunks ? each * threadIdx.x : chunks;
  const std::int64_t end = begin + each < chunks ? begin + each : chunks;
  ChunkCount before;
  for (std::int64_t c = begin; c < end; ++c) {
    before.above += counts[c].above;
    before.equal += counts[c].equal;
  }
  unsigned all = 0;
  before.above = sum_before(before.above, sums, &all);
  before.equal = sum_before(before.equal, sums, &all);
  if (threadIdx.x == 0) selection->all_equal = all;
  for (std::int64_t c = begin; c < end; ++c) {
    const ChunkCount own = counts[c];
    counts[c] = before;
    before.above += own.above;
    before.equal += own.equal;
  }
}

/// What becomes of the keys that are taken; null where nobody asks.
struct Taken {
  /// One for each key, and one more: those taken before it, or the keys left before it.
  std::uint32_t* taken_before = nullptr;
  std::uint32_t* left_before = nullptr;
  /// In their order, of each key taken: itself and its place. Places of the first array's keys are
  /// given, those of the second's are `place` and what follows.
  std::uint32_t* keys = nullptr;
  std::int64_t* places = nullptr;
  const std::int64_t* first_places = nullptr;
  std::int64_t place = 0;
};

/// Grid of any size; a warp walks a chunk, a lane a key.
inline __global__ void __launch_bounds__(SelectTraits::block)
    take_kernel(Keys keys, const Selection* selection, const ChunkCount* counts,
                std::int64_t chunks, Taken to) {
  const std::uint32_t bar = selection->bar;
  const unsigned equal = selection->equal;
  const unsigned lane = threadIdx.x % kWarp;
  const unsigned lower_lanes = (1U << lane) - 1;
  const std::int64_t count = keys.count();
  for (std::int64_t chunk = warp_item(); chunk < chunks; chunk += warp_step()) {
    ChunkCount before = counts[chunk];
    const std::int64_t begin = chunk * SelectTraits::chunk;
    const std::int64_t end =
        begin + SelectTraits::chunk < count ? begin + SelectTraits::chunk : count;
#pragma unroll 1
    for (std::int64_t first = begin; first < end; first += kWarp) {
      const std::int64_t i = first + lane;
      const std::uint32_t key = i < end ? keys[i] : 0;
      const unsigned is_above = __ballot_sync(kFullWarp, i < end && key > bar);
      const unsigned is_equal = __ballot_sync(kFullWarp, i < end && key == bar);
      const unsigned equal_before = before.equal + __popc(is_equal & lower_lanes);
      const unsigned taken_before = before.above + __popc(is_above & lower_lanes) +
                                    (equal_before < equal ? equal_before : equal);
      before.above += __popc(is_above);
      before.equal += __popc(is_equal);
      if (i >= end) continue;
      const bool is_taken = key > bar || (key == bar && equal_before < equal);
      const auto number = static_cast<std::uint32_t>(i);
      if (to.taken_before != nullptr) to.taken_before[i] = taken_before;
      if (to.left_before != nullptr) to.left_before[i] = number - taken_before;
      if (i + 1 == count) {
        const unsigned all = taken_before + (is_taken ? 1 : 0);
        if (to.taken_before != nullptr) to.taken_before[count] = all;
        if (to.left_before != nullptr) to.left_before[count] = number + 1 - all;
      }
      if (!is_taken) continue;
      if (to.keys != nullptr) to.keys[taken_before] = key;
      if (to.places == nullptr) continue;
      to.places[taken_before] =
          i < keys.first_count ? to.first_places[i] : to.place + (i - keys.first_count);
    }
  }
}

}  // namespace spdnn::cuda
