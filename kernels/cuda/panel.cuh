// What all SpMM kernels share: a lane's images of a panel as one vector, the epilogue, and the
// flags of living images. A panel is P = 32 · V images wide; lane l of a warp holds images [l·V,
// l·V + V).
#pragma once

#include "cuda/device_code.cuh"

namespace spdnn::cuda {

/// A layer as a kernel gets it, by value. All pointers are of the device.
struct SpmmKernelArgs {
  CsrView csr;
  BiasView<float> bias;
  Epilogue epilogue;
  Panels<const float> x;
  Panels<float> y;
  std::uint8_t* alive = nullptr;
};

/// V images of one feature.
template <int V>
struct Lanes {
  static_assert(V == 1 || V == 2 || V == 4, "a lane loads 4, 8 or 16 bytes at once");
  float v[V];
};

/// One load of 4·V bytes, from shared memory or from what this kernel itself wrote.
template <int V>
__device__ __forceinline__ Lanes<V> load(const float* at) {
  if constexpr (V == 1) {
    return {{*at}};
  } else if constexpr (V == 2) {
    const float2 q = *reinterpret_cast<const float2*>(at);
    return {{q.x, q.y}};
  } else {
    const float4 q = *reinterpret_cast<const float4*>(at);
    return {{q.x, q.y, q.z, q.w}};
  }
}

/// The same from global memory that nothing writes during the kernel.
template <int V>
__device__ __forceinline__ Lanes<V> load_constant(const float* at) {
  if constexpr (V == 1) {
    return {{__ldg(at)}};
  } else if constexpr (V == 2) {
    const float2 q = __ldg(reinterpret_cast<const float2*>(at));
    return {{q.x, q.y}};
  } else {
    const float4 q = __ldg(reinterpret_cast<const float4*>(at));
    return {{q.x, q.y, q.z, q.w}};
  }
}

template <int V>
__device__ __forceinline__ void store(float* at, const Lanes<V>& value) {
  if constexpr (V == 1) {
    *at = value.v[0];
  } else if constexpr (V == 2) {
    *reinterpret_cast<float2*>(at) = float2{value.v[0], value.v[1]};
  } else {
    *reinterpret_cast<float4*>(at) = float4{value.v[0], value.v[1], value.v[2], value.v[3]};
  }
}

/// R weights that stand together, the same for neighbouring lanes; at a multiple of their size, or
/// of 16 bytes. `kConstant`: in global memory that nothing writes during the kernel.
template <bool kConstant, int R>
__device__ __forceinline__ void load_weights(float (&weights)[R], const float* at) {
  constexpr int kVector = R < 4 ? R : 4;
  static_assert(kVector != 3 && R % kVector == 0);
#pragma unroll
  for (int i = 0; i < R; i += kVector) {
    const auto part = kConstant ? load_constant<kVector>(at + i) : load<kVector>(at + i);
#pragma unroll
    for (int j = 0; j < kVector; ++j) weights[i + j] = part.v[j];
  }
}

/// 16-bit index j of the eight in one load.
__device__ __forceinline__ unsigned packed_index(const uint4& packed, int j) {
  const unsigned word = j < 2 ? packed.x : j < 4 ? packed.y : j < 6 ? packed.z : packed.w;
  return j % 2 == 0 ? word & 0xffffU : word >> 16;
}

/// sum ← weight · x + sum, one rounding: a link of the canonical chain.
template <int V>
__device__ __forceinline__ void add_product(Lanes<V>& sum, float weight, const Lanes<V>& x) {
#pragma unroll
  for (int i = 0; i < V; ++i) sum.v[i] = __fmaf_rn(weight, x.v[i], sum.v[i]);
}

__device__ __forceinline__ float finish(float sum, float bias, const Epilogue& epilogue) {
  return fminf(fmaxf(sum + bias, epilogue.lower), epilogue.upper);
}

/// Applies the epilogue; sets bit i of `nonzero` where image i of the lane is not 0.
template <int V>
__device__ __forceinline__ void finish(Lanes<V>& sum, float bias, const Epilogue& epilogue,
                                       unsigned& nonzero) {
#pragma unroll
  for (int i = 0; i < V; ++i) {
    sum.v[i] = finish(sum.v[i], bias, epilogue);
    nonzero |= sum.v[i] != 0.0F ? 1U << i : 0U;
  }
}

/// Images really there: `*live`, kept within the bound the host knows.
template <class T>
__device__ __forceinline__ std::int64_t live_images(const Panels<T>& panels) {
  if (panels.live == nullptr) return panels.batch;
  const std::int64_t live = *panels.live;
  return live < 0 ? 0 : (live < panels.batch ? live : panels.batch);
}

template <class T>
__device__ __forceinline__ std::int64_t live_panels(const Panels<T>& panels) {
  return (live_images(panels) + panels.width - 1) / panels.width;
}

/// Sets a flag that all writers set to the same 1. Volatile makes it a relaxed store, so that
/// warps of several blocks may meet here; looking first saves the store in nearly all of them.
__device__ __forceinline__ void raise_flag(std::uint8_t* flag) {
  volatile std::uint8_t* shared_flag = flag;
  if (*shared_flag == 0) *shared_flag = 1;
}

/// Raises the flags of a lane's images in `panel` whose bit is set; unused lanes of the last panel
/// have none.
template <int V>
__device__ __forceinline__ void mark_alive(const SpmmKernelArgs& args, std::int64_t panel, int lane,
                                           unsigned nonzero) {
  if (args.alive == nullptr || nonzero == 0) return;
  const std::int64_t first = panel * args.x.width + lane * V;
  const std::int64_t live = live_images(args.x);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if ((nonzero >> i & 1U) != 0 && first + i < live) raise_flag(args.alive + first + i);
  }
}

}  // namespace spdnn::cuda
