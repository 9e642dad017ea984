// chain_resident: a run of layers whose activations stay in shared memory.
//
// Mapping: a block owns a tile of W images (16, 8 or 4: the most whose widest neighbouring layers
// fit) and takes it through all layers; inputs and outputs of a layer stand in shared memory,
// `[features][W]`, and change places after it. W neighbouring threads work on a job, one image
// each: 16, 8, 4, 2 or 1 rows that share their list of columns, summed in registers. Weights come
// as a stream of 16 KB chunks (chain_format.hpp), the next copied asynchronously while one is read,
// across layers and tiles; all blocks read the same stream at about the same time, from L2.
//
// Bytes: 4 for each input and each output feature of an image, once for the whole run; the stream,
// 2 + 4 / W · (0 or 4 · R) bytes for the W · R edges of an entry, once for each tile; shared
// memory, 4 for each R edges, 2 for each 8 · R · W, and 4 · R an entry where values differ. Bound:
// at R = 16 the FMA units (16 of them for one shared load and two instructions of address).
//
// Wins where rows repeat lists and the images that live are many: activations in device memory are
// what bounds the kernels of single layers. A layer with one barrier for each chunk, and blocks
// that hold an SM alone, make it a poor choice for a handful of images.
//
// Order: canonical.
#include <array>

#include "cuda/chain_resident.cuh"
#include "cuda/cuda_kernels.hpp"
#include "cuda/launch.hpp"

namespace spdnn {
namespace {

using cuda::ChainTraits;

/// Tiles the kernel is built for, the widest first.
constexpr std::array<int, 3> kTileImages = {16, 8, 4};
/// A list's columns have 16 bits.
constexpr std::int64_t kMostFeatures = 65536;

/// Shared memory of a block: two chunks and both sets of activations.
std::int64_t shared_bytes(std::int64_t even, std::int64_t odd, int images) {
  return 2 * cuda::kChainChunkBytes + (even + odd) * images * std::int64_t{sizeof(float)};
}

/// Room for activations: `even` for the inputs of layers 0, 2, …, `odd` for their outputs.
struct Room {
  std::int64_t even = 0, odd = 0;
  void add(std::size_t layer, std::int64_t inputs, std::int64_t outputs) {
    std::int64_t& in = layer % 2 == 0 ? even : odd;
    std::int64_t& out = layer % 2 == 0 ? odd : even;
    in = std::max(in, inputs);
    out = std::max(out, outputs);
  }
  /// Images of the widest tile that fits; 0 when none does.
  [[nodiscard]] int images(std::int64_t shared) const {
    for (const int images : kTileImages) {
      if (shared_bytes(even, odd, images) <= shared) return images;
    }
    return 0;
  }
};

std::optional<std::string> declines(std::span<const SpmmShape> layers, const DeviceInfo& device) {
  if (layers.empty()) return "there are no layers";
  Room room;
  bool shared_values = true;
  for (const SpmmShape& layer : layers) shared_values = shared_values && layer.shared_value;
  const std::int64_t most = cuda::most_chain_entries(shared_values);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const SpmmShape& layer = layers[l];
    if (layer.value_type != DType::f32) return "weights are not f32";
    if (layer.cols > kMostFeatures || layer.rows > kMostFeatures) {
      return "layer " + std::to_string(l + 1) + " has more than " + std::to_string(kMostFeatures) +
             " features";
    }
    if (layer.max_row_nnz > most) {
      return "layer " + std::to_string(l + 1) + " has a row of " +
             std::to_string(layer.max_row_nnz) + " entries; a chunk of weights holds " +
             std::to_string(most);
    }
    room.add(l, layer.cols, layer.rows);
  }
  if (room.images(device.shared_bytes) == 0) {
    return "its widest layers' " + std::to_string(room.even + room.odd) + " features take " +
           std::to_string(shared_bytes(room.even, room.odd, kTileImages.back())) +
           " bytes of shared memory for " + std::to_string(kTileImages.back()) +
           " images; a block has " + std::to_string(device.shared_bytes);
  }
  return std::nullopt;
}

/// The chain on the device.
struct DeviceChain {
  Buffer stream, chunks, layers;
  cuda::ChainView view;
  int images = 0;
  int multiprocessors = 0;
  bool shared_values = true;
};

PreparedChain prepare(std::span<const ChainLayer<float>> layers, std::int64_t /*batch*/,
                      Device& device, Stream& stream) {
  auto chain = std::make_shared<DeviceChain>();
  std::vector<CsrView> matrices;
  Room room;
  for (const ChainLayer<float>& layer : layers) {
    room.add(matrices.size(), layer.weights.cols, layer.weights.rows);
    chain->shared_values = chain->shared_values && layer.weights.shared_value;
    matrices.push_back(layer.weights);
  }
  chain->images = room.images(device.info().shared_bytes);
  if (chain->images == 0) throw DeviceError("chain_resident: the layers do not fit shared memory");
  chain->multiprocessors = device.info().multiprocessors;
  const cuda::ChainFormat format =
      cuda::build_chain(matrices, ChainTraits::block / chain->images, chain->shared_values);
  std::vector<cuda::ChainLayerView> views;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const cuda::ChainFormatLayer& layer = format.layers[l];
    views.push_back({layer.chunk_end, layers[l].bias, layers[l].epilogue, layer.shared_weight});
  }
  cuda::ChainView& view = chain->view;
  view.stream =
      reinterpret_cast<const uint4*>(cuda::upload(format.stream, chain->stream, device, stream));
  view.chunks = cuda::upload(format.chunks, chain->chunks, device, stream);
  view.layers = cuda::upload(views, chain->layers, device, stream);
  view.chunk_count = std::ssize(format.chunks);
  view.layer_count = static_cast<std::int32_t>(layers.size());
  view.even_features = static_cast<std::int32_t>(room.even);
  view.odd_features = static_cast<std::int32_t>(room.odd);
  stream.synchronize();  // the host arrays end here
  return {std::move(chain)};
}

template <class Body>
void with_images(int images, Body body) {
  if (images == kTileImages[0]) return body(cuda::Constant<kTileImages[0]>{});
  if (images == kTileImages[1]) return body(cuda::Constant<kTileImages[1]>{});
  return body(cuda::Constant<kTileImages[2]>{});
}

void run(const ChainArgs<float>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  const auto& chain = *static_cast<const DeviceChain*>(args.chain->format.get());
  if (args.x.width % chain.images != 0) {
    throw DeviceError("chain_resident: panels of " + std::to_string(args.x.width) +
                      " images are no multiple of its tiles of " + std::to_string(chain.images));
  }
  if (args.y.batch == 0) return;
  if (args.alive != nullptr) stream.zero(args.alive, static_cast<std::size_t>(args.y.batch));
  if (args.unchanged != nullptr) assume_unchanged_cuda(args.y, args.unchanged, stream);
  const std::int64_t tiles = cuda::ceil_div(args.x.batch, chain.images);
  // A block fills an SM; those past the SMs would only start the stream of weights anew.
  const unsigned grid = cuda::grid_for(std::min<std::int64_t>(tiles, chain.multiprocessors));
  const auto bytes = shared_bytes(chain.view.even_features, chain.view.odd_features, chain.images);
  with_images(chain.images, [&](auto images) {
    cuda::with_bool(chain.shared_values, [&](auto shared) {
      auto* code = &cuda::chain_resident_kernel<decltype(images)::value, decltype(shared)::value,
                                                cuda::DeviceLoader>;
      cuda::allow_shared(code, bytes, "chain_resident: asking for shared memory");
      cuda::launch(code, grid, ChainTraits::block, static_cast<std::size_t>(bytes), native,
                   cuda::ChainKernelArgs{chain.view, args.x, args.y, args.alive, args.unchanged});
    });
  });
  cuda::check_launch("chain_resident");
}

}  // namespace

const ChainKernel<float>& chain_resident_cuda() {
  static const ChainKernel<float> kernel{"chain_resident", DeviceKind::cuda, Order::canonical,
                                         &declines,        &prepare,         &run};
  return kernel;
}

}  // namespace spdnn
