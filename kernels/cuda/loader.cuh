// Copies from device memory to shared memory, behind one interface: asynchronous on a GPU, plain
// where the SIMT layer runs the rest of a kernel.
#pragma once

#include "cuda/device_code.cuh"

namespace spdnn::cuda {

/// Copies at once. A thread sees its own copies; others do after a block barrier.
struct PlainLoader {
  /// 16 bytes; both addresses are multiples of 16.
  static __device__ __forceinline__ void copy(uint4* shared, const uint4* global) {
    *shared = __ldg(global);
  }
  /// Returns when all copies of this thread have arrived.
  static __device__ __forceinline__ void wait() {}
};

#if defined(__CUDACC__)
/// The same with `cp.async` (PTX ISA, compute capability 8.0 on): past the registers and L1, while
/// the thread goes on.
struct AsyncLoader {
  static __device__ __forceinline__ void copy(uint4* shared, const uint4* global) {
    const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
  }
  static __device__ __forceinline__ void wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }
};
using DeviceLoader = AsyncLoader;
#else
using DeviceLoader = PlainLoader;
#endif

}  // namespace spdnn::cuda
