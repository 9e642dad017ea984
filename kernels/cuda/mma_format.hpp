// The weights of `spmm_block_mma`: row blocks as the factors that tensor cores multiply. Plain C++,
// built on the host.
//
// One product of a warp is D [16 rows × 8 images] += A [16 × depth] · B [depth × 8]. Lane
// l = 4 · g + q holds rows g and g + 8 of A, and image g of B, at the depth's positions
// [q · kPositions, (q + 1) · kPositions); a position is an entry of the block's list.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "cuda/row_blocks.hpp"
#include "spdnn/half.hpp"
#include "spdnn/op.hpp"

namespace spdnn::cuda {

/// fp32 values rounded to 11 bits, to the nearest with halves away from zero, one to a word.
struct Tf32 {
  static constexpr Precision precision = Precision::tf32;
  static constexpr int per_word = 1;
  SPDNN_HOST_DEVICE static std::uint32_t pack(const float* values) {
    std::uint32_t word = 0;
#if defined(__CUDA_ARCH__)
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(values[0]));
#else
    std::memcpy(&word, values, sizeof word);
    const bool finite = (word >> 23 & 0xffU) != 0xffU;
    if (finite) word = (word + 0x1000U) & ~0x1fffU;
#endif
    return word;
  }
};

/// fp32 values rounded to 8 bits, to the nearest with halves to even, two to a word.
struct Bf16 {
  static constexpr Precision precision = Precision::bf16;
  static constexpr int per_word = 2;
  SPDNN_HOST_DEVICE static std::uint32_t pack(const float* values) {
    std::uint32_t word = 0;
#if defined(__CUDA_ARCH__)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(values[1]), "f"(values[0]));
#else
    word = Bfloat16(values[0]).bits | std::uint32_t{Bfloat16(values[1]).bits} << 16;
#endif
    return word;
  }
};

/// fp32 values as two halves of 11 bits each, two values to a word: the second is what the first
/// leaves, times 2¹¹, so that it is a normal number wherever the first is one (Ootomo and Yokota,
/// IJHPCA 2022). Values up to 65504.
struct Fp16 {
  static constexpr Precision precision = Precision::fp16;
  static constexpr int per_word = 2;
  static constexpr float shift = 0x1p11F;
  SPDNN_HOST_DEVICE static std::uint32_t pack(const float* values) {
#if defined(__CUDA_ARCH__)
    std::uint32_t word = 0;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(values[1]), "f"(values[0]));
    return word;
#else
    return Half(values[0]).bits | std::uint32_t{Half(values[1]).bits} << 16;
#endif
  }
  /// What `pack` leaves of the values, shifted, as a word.
  SPDNN_HOST_DEVICE static std::uint32_t pack_rest(const float* values, std::uint32_t packed) {
    const float rest[2] = {(values[0] - half_value(packed & 0xffffU)) * shift,
                           (values[1] - half_value(packed >> 16)) * shift};
    return pack(rest);
  }
  /// The value of a half.
  SPDNN_HOST_DEVICE static float half_value(std::uint32_t bits) {
    Half half;
    half.bits = static_cast<std::uint16_t>(bits);
    return half;
  }
};

/// Products of which an output is made: one, or for split values those of first halves, and of a
/// first with a second half both ways round.
template <class Kind>
inline constexpr bool kIsSplit = Kind::precision == Precision::fp16;

/// Positions of the depth that one lane holds, and all of them.
template <class Kind>
inline constexpr int kPositions = 2 * Kind::per_word;
template <class Kind>
inline constexpr int kDepth = 4 * kPositions<Kind>;

/// A lane's weights of one product: row g's first word, row g + 8's, then their second words.
struct alignas(16) MmaWeights {
  std::uint32_t words[4];
};

struct MmaBlock {
  std::int64_t list = 0;     ///< into `columns`
  std::int64_t weights = 0;  ///< into `weights`; 32 for each step, twice as many of split ones
  std::int32_t entries = 0;
  std::int32_t rows = 0;    ///< up to 16
  std::uint32_t first = 0;  ///< of its rows in `rows`
};

/// The arrays, host or device, as the kernel reads them.
struct MmaView {
  const MmaBlock* blocks = nullptr;
  const std::uint32_t* rows = nullptr;
  const std::uint32_t* columns = nullptr;
  const MmaWeights* weights = nullptr;
  std::int64_t block_count = 0;
  float unscale = 1.0F;  ///< of sums, where weights are split
};

struct MmaFormat {
  std::vector<MmaBlock> blocks;
  std::vector<std::uint32_t> rows;
  std::vector<std::uint32_t> columns;
  std::vector<MmaWeights> weights;  ///< 0 past a block's rows and entries
  /// Split weights are multiplied by a power of two that brings the largest to [2¹⁴, 2¹⁵), so that
  /// the halves of small ones are normal numbers; this is its inverse.
  float unscale = 1.0F;
};

/// Makes the blocks of a matrix in host memory, in O(nnz) and the padding.
template <class Kind>
[[nodiscard]] MmaFormat build_mma(const CsrView& csr);
template <>
MmaFormat build_mma<Tf32>(const CsrView& csr);
template <>
MmaFormat build_mma<Bf16>(const CsrView& csr);
template <>
MmaFormat build_mma<Fp16>(const CsrView& csr);

}  // namespace spdnn::cuda
