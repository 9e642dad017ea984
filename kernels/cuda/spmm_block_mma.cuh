// Device code of `spmm_block_mma`; mapping and costs are described in spmm_block_mma.cu.
#pragma once

#include "cuda/mma.cuh"
#include "cuda/panel.cuh"

namespace spdnn::cuda {

struct BlockMmaTraits {
  static constexpr int block = 256;  ///< threads
  static constexpr int warps = block / kWarp;
  static constexpr int blocks_per_sm = 2;  ///< caps a thread at 128 registers
  static constexpr int width = 64;         ///< images of a panel
  static constexpr int tiles = width / 8;  ///< products side by side, 8 images each
  static constexpr int max_blocks_per_warp = 4;
  static_assert(block % kWarp == 0 && block <= 1024);
};

/// Where a lane stands: it loads images [4g, 4g + 4) of each half of a panel, so that eight lanes
/// load 128 bytes; tile 4h + i then holds images 32h + 4n + i, n = 0 … 7. Of a tile's sums it holds
/// n = 2q and 2q + 1: images [8q, 8q + 8) of each half over four tiles.
struct MmaPlace {
  int lane = static_cast<int>(threadIdx.x % kWarp);
  int g = lane / 4;
  int q = lane % 4;
};

/// A lane's weights of one product.
__device__ __forceinline__ MmaWeights load_factor(const MmaWeights* at) {
  const uint4 packed = __ldg(reinterpret_cast<const uint4*>(at));
  return {{packed.x, packed.y, packed.z, packed.w}};
}

/// sums += one step's product for one tile, whose inputs at this lane's positions are `in`.
template <class Kind>
__device__ __forceinline__ void add_step(MmaSums& sums, const MmaWeights& a,
                                         const MmaWeights& a_rest,
                                         const float (&in)[kPositions<Kind>]) {
  const unsigned b[2] = {Kind::pack(in), Kind::pack(in + Kind::per_word)};
  mma<Kind>(sums, a, b);
  if constexpr (kIsSplit<Kind>) {
    const unsigned b_rest[2] = {Kind::pack_rest(in, b[0]),
                                Kind::pack_rest(in + Kind::per_word, b[1])};
    MmaSums rest{};
    mma<Kind>(rest, a, b_rest);
    mma<Kind>(rest, a_rest, b);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums.v[i] = __fmaf_rn(rest.v[i], 1.0F / Kind::shift, sums.v[i]);
    }
  }
}

/// All products of one block of rows. `x` points at the panel's feature 0.
template <class Kind>
__device__ __forceinline__ void block_products(MmaSums (&sums)[BlockMmaTraits::tiles],
                                               const MmaView& format, const MmaBlock& block,
                                               const float* x, const MmaPlace& place) {
  constexpr int kHeld = kPositions<Kind>;
  const MmaWeights* weights = format.weights + block.weights + place.lane;
  const std::uint32_t* columns = format.columns + block.list;
  constexpr int kParts = kIsSplit<Kind> ? 2 : 1;
  for (int k = 0; k < block.entries; k += kDepth<Kind>, weights += kParts * kWarp) {
    const MmaWeights a = load_factor(weights);
    const MmaWeights a_rest = kIsSplit<Kind> ? load_factor(weights + kWarp) : MmaWeights{};
    float in[BlockMmaTraits::tiles][kHeld];
#pragma unroll
    for (int p = 0; p < kHeld; ++p) {
      const int entry = k + place.q * kHeld + p;
      Lanes<4> half[2] = {};
      if (entry < block.entries) {  // past the end, 0 · infinity would not be 0
        const float* from =
            x + std::size_t{__ldg(columns + entry)} * BlockMmaTraits::width + 4 * place.g;
        half[0] = load_constant<4>(from);
        half[1] = load_constant<4>(from + BlockMmaTraits::width / 2);
      }
#pragma unroll
      for (int t = 0; t < BlockMmaTraits::tiles; ++t) in[t][p] = half[t / 4].v[t % 4];
    }
#pragma unroll
    for (int t = 0; t < BlockMmaTraits::tiles; ++t) add_step<Kind>(sums[t], a, a_rest, in[t]);
  }
}

/// Epilogue and outputs of one block. Bit 8h + i of `nonzero` stands for image 32h + 8q + i.
template <class Kind>
__device__ __forceinline__ void store_block(const SpmmKernelArgs& args, const MmaView& format,
                                            const MmaBlock& block,
                                            const MmaSums (&sums)[BlockMmaTraits::tiles], float* y,
                                            const MmaPlace& place, unsigned& nonzero) {
#pragma unroll
  for (int lower = 0; lower < 2; ++lower) {
    const int position = place.g + 8 * lower;
    if (position >= block.rows) continue;
    const std::uint32_t row = __ldg(format.rows + block.first + position);
    const float bias = __ldg(args.bias.data + row * args.bias.stride);
    float* to = y + std::int64_t{row} * BlockMmaTraits::width + 8 * place.q;
#pragma unroll
    for (int part = 0; part < 4; ++part) {  // images 4 · (part % 2) on of half part / 2
      Lanes<4> out;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        out.v[i] = sums[part / 2 * 4 + i].v[2 * lower + part % 2];
        if constexpr (kIsSplit<Kind>) out.v[i] *= format.unscale;
      }
      unsigned bits = 0;
      finish(out, bias, args.epilogue, bits);
      nonzero |= bits << 4 * part;
      store(to + part / 2 * (BlockMmaTraits::width / 2) + part % 2 * 4, out);
    }
  }
}

/// Raises the flags of a panel's images, from the bits of all lanes.
__device__ __forceinline__ void mark_tiles_alive(const SpmmKernelArgs& args, std::int64_t panel,
                                                 const MmaPlace& place, unsigned nonzero) {
  if (args.alive == nullptr) return;
#pragma unroll
  for (int lanes = 4; lanes < kWarp; lanes *= 2) {
    nonzero |= __shfl_xor_sync(kFullWarp, nonzero, lanes);
  }
  if (place.g != 0) return;
  const std::int64_t live = live_images(args.x);
  for (int bit = 0; bit < 16; ++bit) {
    const std::int64_t image = panel * BlockMmaTraits::width +
                               bit / 8 * (BlockMmaTraits::width / 2) + 8 * place.q + bit % 8;
    if ((nonzero >> bit & 1U) != 0 && image < live) raise_flag(args.alive + image);
  }
}

/// Grid of any size. Items are (panel, run of row blocks), the runs of a panel side by side.
template <class Kind>
__global__ void __launch_bounds__(BlockMmaTraits::block, BlockMmaTraits::blocks_per_sm)
    spmm_block_mma_kernel(SpmmKernelArgs args, MmaView format, int blocks_per_warp) {
  const MmaPlace place;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const std::int64_t run_blocks = std::int64_t{BlockMmaTraits::warps} * blocks_per_warp;
  const std::int64_t runs = (format.block_count + run_blocks - 1) / run_blocks;
  const std::int64_t items = live_panels(args.x) * runs;
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const std::int64_t panel = item / runs;
    const std::int64_t first = (item - panel * runs) * run_blocks + warp;
    unsigned nonzero = 0;
    for (int i = 0; i < blocks_per_warp; ++i) {
      const std::int64_t index = first + std::int64_t{i} * BlockMmaTraits::warps;
      if (index >= format.block_count) break;
      const MmaBlock block = format.blocks[index];
      MmaSums sums[BlockMmaTraits::tiles] = {};
      block_products<Kind>(sums, format, block, args.x.panel(panel), place);
      store_block<Kind>(args, format, block, sums, args.y.panel(panel), place, nonzero);
    }
    mark_tiles_alive(args, panel, place, nonzero);
  }
}

}  // namespace spdnn::cuda
