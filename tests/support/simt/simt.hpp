// Runs CUDA kernels on the host, so that the same device code is tested on machines without a GPU.
//
// Each thread of a block is a fiber; blocks run one after another. Warps take turns forward,
// reversed or in seeded random order, each until all its lanes wait or end, so that a barrier that
// is missing shows under some schedule. What a GPU would answer with a hang or with silent damage
// (lanes or threads that do not meet, writes past dynamic shared memory) ends in a `simt::Error`.
//
// Not shown here: races between blocks, memory ordering, tensor cores, asynchronous copies.
// Restrictions: one dimension, full-width shuffles, no device-wide synchronisation; `__shared__`
// variables keep their contents from block to block.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <type_traits>

#define __global__
#define __device__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct uint3 {
  unsigned x, y, z;
};

// Of the thread that is running.
inline uint3 threadIdx{0, 0, 0};
inline uint3 blockIdx{0, 0, 0};
inline uint3 blockDim{1, 1, 1};
inline uint3 gridDim{1, 1, 1};

namespace simt {

/// A kernel did what a GPU would not survive, or would survive only by luck.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// In which order the warps of a block, and the lanes of a warp, take turns.
enum class Order : std::uint8_t { forward, reversed, random };

struct Schedule {
  Order order = Order::forward;
  std::uint64_t seed = 0;
};

struct Launch {
  unsigned grid = 1;             ///< blocks
  unsigned block = 32;           ///< threads of each
  std::size_t shared_bytes = 0;  ///< dynamic shared memory of each
  Schedule schedule;
};

/// Runs `thread` once for each thread of each block. Throws `Error`, or what a thread threw.
void run_grid(const Launch& launch, const std::function<void()>& thread);

/// What `kernel<<<grid, block, shared_bytes>>>(arguments…)` does; complete when it returns.
template <class... Parameters, class... Arguments>
void launch(const Launch& how, void (*kernel)(Parameters...), Arguments&&... arguments) {
  run_grid(how, [&] { kernel(arguments...); });
}

/// The block's dynamic shared memory; holds NaNs when a block starts.
[[nodiscard]] void* dynamic_shared_memory();

/// A line of device code.
struct Site {
  const char* file = "";
  int line = 0;
};

enum class Meeting : std::uint8_t { block_barrier, warp_barrier, shuffle, ballot };

/// Waits until all threads concerned are at the same meeting. Returns the payload of lane `source`
/// for a shuffle, the lanes with a payload other than 0 for a ballot, else 0.
std::uint64_t meet(Meeting meeting, unsigned mask, std::uint64_t payload, int source, Site site);

template <class T>
T shuffle(unsigned mask, T value, int source, Site site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = meet(Meeting::shuffle, mask, bits, source, site);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

[[nodiscard]] inline int lane() { return static_cast<int>(threadIdx.x % 32); }

}  // namespace simt

// The intrinsics the kernels use. The default arguments record the line of the call.
#define SIMT_AT const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(SIMT_AT) {
  simt::meet(simt::Meeting::block_barrier, 0, 0, 0, {file, line});
}
inline void __syncwarp(unsigned mask = 0xffffffffU, SIMT_AT) {
  simt::meet(simt::Meeting::warp_barrier, mask, 0, 0, {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_AT) {
  return static_cast<unsigned>(
      simt::meet(simt::Meeting::ballot, mask, predicate != 0, 0, {file, line}));
}
inline int __any_sync(unsigned mask, int predicate, SIMT_AT) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, SIMT_AT) {
  return simt::shuffle(mask, value, source & 31, {file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, SIMT_AT) {
  const int source = simt::lane() - static_cast<int>(delta);
  return simt::shuffle(mask, value, source < 0 ? simt::lane() : source, {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, SIMT_AT) {
  const int source = simt::lane() + static_cast<int>(delta);
  return simt::shuffle(mask, value, source > 31 ? simt::lane() : source, {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, SIMT_AT) {
  return simt::shuffle(mask, value, simt::lane() ^ lanes, {file, line});
}
#undef SIMT_AT

// Threads pause only where they meet, so a plain update is atomic.
template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  *at = old + value;
  return old;
}
template <class T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  *at = old | value;
  return old;
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  const T old = *at;
  if (old == expected) *at = value;
  return old;
}
template <class T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  if (value < old) *at = value;
  return old;
}

template <class T>
T __ldg(const T* at) {
  return *at;
}
inline float __uint_as_float(unsigned bits) {
  float value = 0.0F;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
