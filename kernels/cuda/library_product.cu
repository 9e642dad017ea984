// The epilogue of a library's product: a warp takes a panel's images of 8 rows. Bytes: 4 read and 4
// written for each output of each image within the bound of the batch.
#include "cuda/epilogue.cuh"
#include "cuda/library_product.hpp"

namespace spdnn::cuda {

void* with_room(Buffer& buffer, std::size_t bytes, Device& device) {
  if (buffer.bytes() < bytes) {
    buffer = Buffer();
    buffer = device.allocate(bytes);
  }
  return buffer.data();
}

Panels<float> product_panels(const SpmmArgs<float>& args, Buffer& room, Device& device) {
  Panels<float> product = args.y;
  if (args.y.live != nullptr) {
    const auto bytes = static_cast<std::size_t>(args.y.size()) * sizeof(float);
    product.data = static_cast<float*>(with_room(room, bytes, device));
  }
  return product;
}

void run_epilogue(const SpmmKernelArgs& args, const float* product, cudaStream_t stream) {
  constexpr std::int64_t kGroupRows =
      std::int64_t{EpilogueTraits::warps} * EpilogueTraits::rows_per_warp;
  const unsigned grid = grid_for(args.x.count() * ceil_div(args.csr.rows, kGroupRows));
  with_width(args.x.width, [&](auto v) {
    epilogue_kernel<decltype(v)::value><<<grid, EpilogueTraits::block, 0, stream>>>(args, product);
  });
  check_launch("epilogue");
}

}  // namespace spdnn::cuda
