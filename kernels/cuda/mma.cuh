// Tensor-core products of one warp (PTX ISA, mma.sync.m16n8k8 and .m16n8k16), and the same through
// shuffles where the SIMT layer runs the rest of a kernel. Which lane holds what is told in
// mma_format.hpp.
#pragma once

#include "cuda/device_code.cuh"
#include "cuda/mma_format.hpp"

namespace spdnn::cuda {

/// A lane's sums: rows g and g + 8, each at images 2q and 2q + 1.
struct MmaSums {
  float v[4];
};

#if defined(__CUDACC__)

template <class Kind>
__device__ __forceinline__ void mma(MmaSums& sums, const MmaWeights& a, const unsigned (&b)[2]) {
  float(&d)[4] = sums.v;
  if constexpr (std::is_same_v<Kind, Tf32>) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a.words[0]), "r"(a.words[1]), "r"(a.words[2]), "r"(a.words[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a.words[0]), "r"(a.words[1]), "r"(a.words[2]), "r"(a.words[3]), "r"(b[0]), "r"(b[1]));
  }
}

#else

/// The product of two words' values, summed.
template <class Kind>
double word_product(unsigned a, unsigned b) {
  if constexpr (std::is_same_v<Kind, Tf32>) {
    return double{__uint_as_float(a)} * double{__uint_as_float(b)};
  } else {
    const unsigned high = 0xffff0000U;
    return double{__uint_as_float(a << 16)} * double{__uint_as_float(b << 16)} +
           double{__uint_as_float(a & high)} * double{__uint_as_float(b & high)};
  }
}

template <class Kind>
void mma(MmaSums& sums, const MmaWeights& a, const unsigned (&b)[2]) {
  const int g = static_cast<int>(threadIdx.x % kWarp) / 4;
  const int q = static_cast<int>(threadIdx.x % kWarp) % 4;
  double d[4];
  for (int i = 0; i < 4; ++i) d[i] = double{sums.v[i]};
  for (int other = 0; other < 4; ++other) {
    unsigned row[4];
    for (int i = 0; i < 4; ++i) row[i] = __shfl_sync(kFullWarp, a.words[i], 4 * g + other);
    for (int n = 0; n < 2; ++n) {
      const int from = 4 * (2 * q + n) + other;
      const unsigned low = __shfl_sync(kFullWarp, b[0], from);
      const unsigned high = __shfl_sync(kFullWarp, b[1], from);
      for (int half = 0; half < 2; ++half) {
        d[2 * half + n] += word_product<Kind>(row[half], low);
        d[2 * half + n] += word_product<Kind>(row[2 + half], high);
      }
    }
  }
  for (int i = 0; i < 4; ++i) sums.v[i] = static_cast<float>(d[i]);
}

#endif

}  // namespace spdnn::cuda
