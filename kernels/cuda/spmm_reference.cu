// spmm_reference: what the other CUDA kernels are held against, on the device itself.
//
// Mapping: a thread owns one output and adds its row serially in double; neighbouring threads hold
// neighbouring images. Bytes: as spmm_row_warp, with double arithmetic on top. Never the fastest;
// the last kernel of the table, it takes every layer.
//
// Order: other (double).
#include "cuda/cuda_kernels.hpp"
#include "cuda/launch.hpp"
#include "cuda/spmm_reference.cuh"

namespace spdnn {
namespace {

std::optional<std::string> declines(const SpmmShape& /*shape*/, const DeviceInfo& /*device*/) {
  return std::nullopt;
}

void run(const SpmmArgs<float>& args, Stream& stream) {
  const cuda::NativeStream native = cuda::stream_of(stream);
  const cuda::SpmmKernelArgs kernel = cuda::kernel_args(args, stream);
  const std::int64_t outputs = args.x.count() * kernel.csr.rows * args.x.width;
  if (outputs == 0) return;
  const unsigned grid = cuda::grid_for(cuda::ceil_div(outputs, cuda::ReferenceTraits::block));
  cuda::with_index(kernel.csr.index_type, [&](auto index) {
    cuda::with_bool(kernel.csr.value_type == DType::f64, [&](auto is_double) {
      using Value = std::conditional_t<decltype(is_double)::value, double, float>;
      cuda::launch(&cuda::spmm_reference_kernel<decltype(index), Value>, grid,
                   cuda::ReferenceTraits::block, 0, native, kernel);
    });
  });
  cuda::check_launch("spmm_reference");
}

}  // namespace

const SpmmKernel<float>& spmm_reference_cuda() {
  static const SpmmKernel<float> kernel{"reference", DeviceKind::cuda, Order::other,
                                        &declines,   &upload_csr,      &run};
  return kernel;
}

}  // namespace spdnn
