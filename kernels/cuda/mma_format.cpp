// Builds the factors of `spmm_block_mma`.
#include "cuda/mma_format.hpp"

#include <utility>

namespace spdnn::cuda {
namespace {

constexpr int kLanes = 32;
constexpr int kHalf = 8;  ///< rows g and g + 8 are a lane's

/// The weights that lane `lane` holds in product `step` of a block.
template <class Kind>
MmaWeights weights_of(const CsrView& csr, const std::uint32_t* rows, const MmaBlock& block,
                      int step, int lane) {
  MmaWeights weights{};
  for (int half = 0; half < 2; ++half) {
    const int r = lane / 4 + half * kHalf;
    float values[kPositions<Kind>] = {};
    for (int p = 0; p < kPositions<Kind>; ++p) {
      const int entry = step * kDepth<Kind> + lane % 4 * kPositions<Kind> + p;
      if (r < block.rows && entry < block.entries) {
        values[p] = static_cast<float>(csr.value(csr.row_begin(rows[r]) + entry));
      }
    }
    weights.words[half] = Kind::pack(values);
    weights.words[2 + half] = Kind::pack(values + Kind::per_word);
  }
  return weights;
}

template <class Kind>
MmaFormat build(const CsrView& csr) {
  RowBlocks made = make_row_blocks(csr, kMostBlockRows);
  MmaFormat format;
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
      for (int lane = 0; lane < kLanes; ++lane) {
        format.weights.push_back(
            weights_of<Kind>(csr, format.rows.data() + from.first, block, step, lane));
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

}  // namespace spdnn::cuda
