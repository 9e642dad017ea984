// Device code of `chain_resident`; mapping and costs are described in chain_resident.cu.
#pragma once

#include "cuda/chain_format.hpp"
#include "cuda/loader.cuh"
#include "cuda/panel.cuh"
#include "cuda/row_blocks.hpp"

namespace spdnn::cuda {

struct ChainTraits {
  static constexpr int block = 512;  ///< threads
  static_assert(block % kWarp == 0 && block <= 1024);
};

/// A layer of the chain, in device memory.
struct ChainLayerView {
  std::int64_t chunk_end = 0;  ///< it begins where the one before ends
  BiasView<float> bias;
  Epilogue epilogue;
  float shared_weight = 0.0F;
};

struct ChainView {
  const uint4* stream = nullptr;
  const ChainChunk* chunks = nullptr;
  const ChainLayerView* layers = nullptr;
  std::int64_t chunk_count = 0;
  std::int32_t layer_count = 0;
  std::int32_t even_features = 0;  ///< room for the inputs of layers 0, 2, … and for outputs there
  std::int32_t odd_features = 0;   ///< room for those of layers 1, 3, …
  unsigned zero = 0;               ///< 0, which the compiler can't know; see `RowGroupView`
};

struct ChainKernelArgs {
  ChainView chain;
  Panels<const float> x;
  Panels<float> y;
  std::uint8_t* alive = nullptr;
  std::uint8_t* unchanged = nullptr;  ///< 1 for all images before
};

/// Where a thread works: on one image of the block's tile, and on every `workers`-th job.
template <int W>
struct ChainPlace {
  static constexpr int workers = ChainTraits::block / W;
  int image = static_cast<int>(threadIdx.x % W);
  int worker = static_cast<int>(threadIdx.x / W);
};

/// Sums of a job's R rows for one image; `in` points at the image's feature 0 in shared memory.
template <int R, int W, bool kSharedValue>
__device__ __forceinline__ void job_sums(float (&sums)[R], const ChainJob& job, const uint4* chunk,
                                         const float* in, float shared_weight) {
  const uint4* list = chunk + job.list_at;
  const auto* values = reinterpret_cast<const float*>(chunk + job.values_at);
  float weights[R];
#pragma unroll
  for (float& weight : weights) weight = shared_weight;
  const auto add = [&](const uint4& columns, int j, int entry) {
    const float x = in[packed_index(columns, j) * W];
    if constexpr (!kSharedValue) load_weights<false>(weights, values + entry * R);
#pragma unroll
    for (int r = 0; r < R; ++r) sums[r] = __fmaf_rn(weights[r], x, sums[r]);
  };
  int k = 0;
  for (; k + kChainColumns <= job.entries; k += kChainColumns) {
    const uint4 columns = list[k / kChainColumns];
#pragma unroll
    for (int j = 0; j < kChainColumns; ++j) add(columns, j, k + j);
  }
  if (k < job.entries) {
    const uint4 columns = list[k / kChainColumns];
#pragma unroll
    for (int j = 0; j < kChainColumns - 1; ++j) {
      if (k + j < job.entries) add(columns, j, k + j);
    }
  }
}

template <int R, int W, bool kSharedValue>
__device__ __forceinline__ void run_job(const ChainJob& job, const uint4* chunk,
                                        const ChainLayerView& layer, unsigned zero, const float* in,
                                        float* out) {
  float sums[R];
#pragma unroll
  for (int r = 0; r < R; ++r) sums[r] = kSharedValue ? __uint_as_float(zero & 1U << r) : 0.0F;
  job_sums<R, W, kSharedValue>(sums, job, chunk, in, layer.shared_weight);
  const auto* rows = reinterpret_cast<const std::uint16_t*>(chunk + job.rows_at);
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int row = rows[r];
    out[row * W] =
        finish(sums[r], __ldg(layer.bias.data + row * layer.bias.stride), layer.epilogue);
  }
}

/// The jobs of one chunk, from the activations `in` to `out`, both at this thread's image.
template <int W, bool kSharedValue>
__device__ __forceinline__ void run_jobs(const uint4* chunk, int jobs, const ChainLayerView& layer,
                                         unsigned zero, const float* in, float* out) {
  static_assert(kMostBlockRows == 16, "the sizes below");
  const ChainPlace<W> place;
  for (int j = place.worker; j < jobs; j += ChainPlace<W>::workers) {
    const ChainJob job = reinterpret_cast<const ChainJob*>(chunk)[j];
    switch (job.rows) {
      case 16: run_job<16, W, kSharedValue>(job, chunk, layer, zero, in, out); break;
      case 8: run_job<8, W, kSharedValue>(job, chunk, layer, zero, in, out); break;
      case 4: run_job<4, W, kSharedValue>(job, chunk, layer, zero, in, out); break;
      case 2: run_job<2, W, kSharedValue>(job, chunk, layer, zero, in, out); break;
      default: run_job<1, W, kSharedValue>(job, chunk, layer, zero, in, out);
    }
  }
}

/// Two chunks in shared memory: one is read while the next arrives.
template <class Loader>
class ChunkBuffers {
 public:
  __device__ __forceinline__ ChunkBuffers(uint4* shared, const ChainView& chain)
      : shared_(shared), chain_(chain) {}
  /// Starts copying a chunk to the buffer that is not being read.
  __device__ __forceinline__ void load(std::int64_t index) {
    const ChainChunk chunk = chain_.chunks[index];
    uint4* to = shared_ + (reading_ ^ 1) * kUnits;
    for (int i = static_cast<int>(threadIdx.x); i < chunk.units; i += ChainTraits::block) {
      Loader::copy(to + i, chain_.stream + chunk.begin + i);
    }
  }
  /// The chunk loaded last, when all threads have their part of it. All threads of the block meet
  /// here, done with the chunk before.
  __device__ __forceinline__ const uint4* next() {
    Loader::wait();
    __syncthreads();
    reading_ ^= 1;
    return shared_ + reading_ * kUnits;
  }

 private:
  static constexpr int kUnits = kChainChunkBytes / kChainUnit;
  uint4* shared_;
  const ChainView& chain_;
  int reading_ = 1;
};

/// Copies W images from a panel to shared memory, `[features][W]`.
template <int W>
__device__ __forceinline__ void read_tile(float* tile, const Panels<const float>& x,
                                          std::int64_t first_image) {
  const ChainPlace<W> place;
  const float* from = x.panel(first_image / x.width) + first_image % x.width + place.image;
#pragma unroll 4
  for (std::int64_t f = place.worker; f < x.features; f += ChainPlace<W>::workers) {
    tile[f * W + place.image] = __ldg(from + f * x.width);
  }
}

/// And back, raising the flags of images that are not all zero, and clearing those of images that
/// differ from the last layer's inputs.
template <int W>
__device__ __forceinline__ void write_tile(const float* tile, const float* inputs,
                                           const ChainKernelArgs& args, std::int64_t first_image) {
  const ChainPlace<W> place;
  const Panels<float>& y = args.y;
  float* to = y.panel(first_image / y.width) + first_image % y.width + place.image;
  bool any = false;
  bool differs = false;
#pragma unroll 4
  for (std::int64_t f = place.worker; f < y.features; f += ChainPlace<W>::workers) {
    const float value = tile[f * W + place.image];
    any = any || value != 0.0F;
    if (args.unchanged != nullptr) {
      differs = differs || __float_as_uint(value) != __float_as_uint(inputs[f * W + place.image]);
    }
    to[f * y.width] = value;
  }
  const std::int64_t image = first_image + place.image;
  if (image >= live_images(args.x)) return;
  if (any && args.alive != nullptr) raise_flag(args.alive + image);
  if (differs) {
    volatile std::uint8_t* const unchanged = args.unchanged + image;
    *unchanged = 0;
  }
}

/// All layers for one tile, whose inputs are in `even`. Each chunk is loaded while the one before
/// is worked on; behind the last, the first again where another tile follows. All threads see the
/// outputs when it returns: in `odd` after an odd number of layers, else in `even`.
template <int W, bool kSharedValue, class Loader>
__device__ __forceinline__ void run_layers(const ChainView& chain, ChunkBuffers<Loader>& buffers,
                                           float* even, float* odd, bool another_follows) {
  const int image = ChainPlace<W>().image;
  float* in = even;
  float* out = odd;
  std::int64_t index = 0;
  for (int l = 0; l < chain.layer_count; ++l) {
    const ChainLayerView layer = chain.layers[l];
    for (; index < layer.chunk_end; ++index) {
      const uint4* chunk = buffers.next();
      if (index + 1 < chain.chunk_count) {
        buffers.load(index + 1);
      } else if (another_follows) {
        buffers.load(0);
      }
      run_jobs<W, kSharedValue>(chunk, chain.chunks[index].jobs, layer, chain.zero, in + image,
                                out + image);
    }
    float* const used = in;
    in = out;
    out = used;
  }
  __syncthreads();
}

/// Grid of any size; an item is a tile of W images, which divides the panels' width.
template <int W, bool kSharedValue, class Loader>
__global__ void __launch_bounds__(ChainTraits::block, 1)
    chain_resident_kernel(ChainKernelArgs args) {
  const ChainView& chain = args.chain;
  auto* shared = dynamic_shared<uint4>();
  ChunkBuffers<Loader> buffers(shared, chain);
  auto* even = reinterpret_cast<float*>(shared + 2 * (kChainChunkBytes / kChainUnit));
  float* odd = even + chain.even_features * W;
  const std::int64_t tiles = (live_images(args.x) + W - 1) / W;
  if (blockIdx.x < tiles && chain.chunk_count > 0) buffers.load(0);
  for (std::int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    read_tile<W>(even, args.x, tile * W);
    const bool another_follows = tile + gridDim.x < tiles;
    run_layers<W, kSharedValue>(chain, buffers, even, odd, another_follows);
    const bool ends_odd = chain.layer_count % 2 == 1;
    // What a thread reads here is all that it replaces with the next tile's inputs.
    write_tile<W>(ends_odd ? odd : even, ends_odd ? even : odd, args, tile * W);
  }
}

}  // namespace spdnn::cuda
