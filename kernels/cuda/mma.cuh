// Tensor-core products of one warp (PTX ISA, mma.sync.m16n8k8 and .m16n8k16), and the same by plain
// arithmetic where the SIMT layer runs the rest of a kernel. Which lane holds what is told in
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
  } else if constexpr (std::is_same_v<Kind, Fp16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
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
  } else if constexpr (std::is_same_v<Kind, Fp16>) {
    return double{Fp16::half_value(a & 0xffffU)} * double{Fp16::half_value(b & 0xffffU)} +
           double{Fp16::half_value(a >> 16)} * double{Fp16::half_value(b >> 16)};
  } else {
    const unsigned high = 0xffff0000U;
    return double{__uint_as_float(a << 16)} * double{__uint_as_float(b << 16)} +
           double{__uint_as_float(a & high)} * double{__uint_as_float(b & high)};
  }
}

/// What the lanes of a block's warps hold while they multiply.
struct MmaExchange {
  MmaWeights a[kWarp];
  unsigned b[kWarp][2];
};

template <class Kind>
void mma(MmaSums& sums, const MmaWeights& a, const unsigned (&b)[2]) {
  static MmaExchange exchanges[kWarp];
  MmaExchange& held = exchanges[threadIdx.x / kWarp];
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int g = lane / 4;
  const int q = lane % 4;
  held.a[lane] = a;
  for (int i = 0; i < 2; ++i) held.b[lane][i] = b[i];
  __syncwarp();
  double d[4];
  for (int i = 0; i < 4; ++i) d[i] = double{sums.v[i]};
  for (int other = 0; other < 4; ++other) {
    const MmaWeights& row = held.a[4 * g + other];
    for (int n = 0; n < 2; ++n) {
      const unsigned(&column)[2] = held.b[4 * (2 * q + n) + other];
      for (int half = 0; half < 2; ++half) {
        d[2 * half + n] += word_product<Kind>(row.words[half], column[0]);
        d[2 * half + n] += word_product<Kind>(row.words[2 + half], column[1]);
      }
    }
  }
  __syncwarp();
  for (int i = 0; i < 4; ++i) sums.v[i] = static_cast<float>(d[i]);
}

#endif

}  // namespace spdnn::cuda
