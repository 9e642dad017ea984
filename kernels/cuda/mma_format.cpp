// Builds the factors of `spmm_block_mma`.
#include "cuda/mma_format.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace spdnn::cuda {
namespace {

constexpr int kLanes = 32;
constexpr int kHalf = 8;  ///< rows g and g + 8 are a lane's

/// Appends the weights that lane `lane` holds in product `step` of a block; of split ones the first
/// halves, to which the second ones are added 32 further.
template <class Kind>
void add_weights(const CsrView& csr, const std::uint32_t* rows, const MmaBlock& block, int step,
                 int lane, float scale, MmaWeights* at) {
  for (int half = 0; half < 2; ++half) {
    const int r = lane / 4 + half * kHalf;
    float values[kPositions<Kind>] = {};
    for (int p = 0; p < kPositions<Kind>; ++p) {
      const int entry = step * kDepth<Kind> + lane % 4 * kPositions<Kind> + p;
      if (r < block.rows && entry < block.entries) {
        values[p] = static_cast<float>(csr.value(csr.row_begin(rows[r]) + entry)) * scale;
      }
    }
    for (int word = 0; word < 2; ++word) {
      const float* part = values + word * Kind::per_word;
      const std::uint32_t packed = Kind::pack(part);
      at[lane].words[2 * word + half] = packed;
      if constexpr (kIsSplit<Kind>) {
        at[kLanes + lane].words[2 * word + half] = Kind::pack_rest(part, packed);
      }
    }
  }
}

/// The power of two that brings the largest of the weights to [2¹⁴, 2¹⁵).
float scale_of(const CsrView& csr) {
  double largest = 0.0;
  for (std::int64_t k = 0; k < csr.stored_values(); ++k) {
    largest = std::max(largest, std::abs(csr.value(k)));
  }
  if (largest == 0.0 || !std::isfinite(largest)) return 1.0F;
  // Kept where neither it nor its inverse leaves fp32's normal numbers.
  return std::ldexp(1.0F, std::clamp(14 - std::ilogb(largest), -120, 120));
}

template <class Kind>
MmaFormat build(const CsrView& csr) {
  RowBlocks made = make_row_blocks(csr, kMostBlockRows);
  MmaFormat format;
  const float scale = kIsSplit<Kind> ? scale_of(csr) : 1.0F;
  format.unscale = 1.0F / scale;
  format.rows = std::move(made.rows);
  for (const RowBlock& from : made.blocks) {
    MmaBlock& block = format.blocks.emplace_back();
    block.list = std::ssize(format.columns);
    block.weights = std::ssize(format.weights);
    block.entries = static_cast<std::int32_t>(from.entries);
    block.rows = from.rows;
    block.first = from.first;
    for (std::int64_t k = 0; k < from.entries; ++k) {
      format.columns.push_back(static_cast<std::uint32_t>(csr.col(from.list + k)));
    }
    const int steps = (block.entries + kDepth<Kind> - 1) / kDepth<Kind>;
    for (int step = 0; step < steps; ++step) {
      const std::size_t at = format.weights.size();
      format.weights.resize(at + (kIsSplit<Kind> ? 2 : 1) * kLanes);
      for (int lane = 0; lane < kLanes; ++lane) {
        add_weights<Kind>(csr, format.rows.data() + from.first, block, step, lane, scale,
                          format.weights.data() + at);
      }
    }
  }
  return format;
}

}  // namespace

template <>
MmaFormat build_mma<Tf32>(const CsrView& csr) {
  return build<Tf32>(csr);
}
template <>
MmaFormat build_mma<Bf16>(const CsrView& csr) {
  return build<Bf16>(csr);
}
template <>
MmaFormat build_mma<Fp16>(const CsrView& csr) {
  return build<Fp16>(csr);
}

}  // namespace spdnn::cuda
