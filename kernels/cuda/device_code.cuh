// What differs between device code built by nvcc and by a host compiler for the SIMT layer.
#pragma once

#include "spdnn/op.hpp"

#if !defined(__CUDACC__)
#include "support/simt/simt.hpp"
#endif

namespace spdnn::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kFullWarp = 0xffffffffU;

/// The block's dynamic shared memory, aligned for any vector type.
template <class T>
__device__ T* dynamic_shared() {
#if defined(__CUDACC__)
  extern __shared__ uint4 spdnn_dynamic_shared[];
  return reinterpret_cast<T*>(spdnn_dynamic_shared);
#else
  return static_cast<T*>(simt::dynamic_shared_memory());
#endif
}

}  // namespace spdnn::cuda
