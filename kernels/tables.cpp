// Every kernel of this build, in the order in which a layer is offered to them.
#include <fmt/format.h>

#include <array>

#include "chain_layered.hpp"
#include "cpu/cpu_kernels.hpp"
#include "reference/reference.hpp"
#if defined(SPDNN_HAVE_CUDA)
#include "cuda/cuda_kernels.hpp"
#include "cuda/train_kernels.hpp"
#endif

namespace spdnn {

template <>
std::span<const SpmmKernel<float>> spmm_kernels<float>() {
  static const auto table = std::to_array<SpmmKernel<float>>({
#if defined(SPDNN_HAVE_CUDA)
    spmm_block_mma_bf16(), spmm_block_mma_tf32(), spmm_block_mma_fp16(), spmm_row_group_cuda(),
        spmm_tile_cuda(), spmm_row_warp_cuda(), spmm_cusparse(), spmm_dense(), spmm_dense_tf32(),
        spmm_reference_cuda(),
#endif
        spmm_panel_cpu(), spmm_reference<float>(),
  });
  return table;
}

template <>
std::span<const SpmmKernel<float>> window_kernels<float>() {
  static const auto table = std::to_array<SpmmKernel<float>>({
#if defined(SPDNN_HAVE_CUDA)
    conv_tile_cuda(), pool_cuda(),
#endif
        conv_tile_cpu(), pool_panel_cpu(), window_reference(),
  });
  return table;
}

namespace {

template <class T>
std::span<const TrainKernels<T>> train_table() {
  static const auto table = std::to_array<TrainKernels<T>>({
    {"panel",
     DeviceKind::cpu,
     train_sparse_cpu<T>(),
     train_dense_cpu<T>(),
     conv_sparse_cpu<T>(),
     conv_dense_cpu<T>(),
     pool_cpu<T>(),
     loss_part_cpu<T>,
     loss_cpu<T>,
     train_update_cpu<T>,
     sum_of_squares_cpu<T>},
#if defined(SPDNN_HAVE_CUDA)
        train_cuda<T>(),
#endif
        train_reference<T>(),
  });
  return table;
}

}  // namespace

template <>
std::span<const TrainKernels<float>> train_kernels<float>() {
  return train_table<float>();
}
template <>
std::span<const TrainKernels<double>> train_kernels<double>() {
  return train_table<double>();
}

#if defined(SPDNN_HAVE_CUDA)
template <>
std::span<const TrainKernels<Half>> train_kernels<Half>() {
  static const TrainKernels<Half> kernels = train_cuda<Half>();
  return {&kernels, 1};
}
template <>
std::span<const TrainKernels<Bfloat16>> train_kernels<Bfloat16>() {
  static const TrainKernels<Bfloat16> kernels = train_cuda<Bfloat16>();
  return {&kernels, 1};
}
#else
template <>
std::span<const TrainKernels<Half>> train_kernels<Half>() {
  return {};
}
template <>
std::span<const TrainKernels<Bfloat16>> train_kernels<Bfloat16>() {
  return {};
}
#endif

template <>
std::span<const ChainKernel<float>> chain_kernels<float>() {
  static const auto table = std::to_array<ChainKernel<float>>({
#if defined(SPDNN_HAVE_CUDA)
    chain_resident_cuda(), chain_layered(DeviceKind::cuda),
#endif
        chain_layered(DeviceKind::cpu),
  });
  return table;
}

template <>
const LayoutKernels<float>& layout_kernels<float>(DeviceKind kind) {
#if defined(SPDNN_HAVE_CUDA)
  if (kind == DeviceKind::cuda) return layout_cuda();
#endif
  if (kind == DeviceKind::cpu) return layout_cpu();
  throw DeviceError(fmt::format("this build has no kernels for {} devices", to_string(kind)));
}

std::int64_t panel_width(const DeviceInfo& device) {
#if defined(SPDNN_HAVE_CUDA)
  if (device.kind == DeviceKind::cuda) return kCudaPanelWidth;
#endif
  return device.kind == DeviceKind::cpu ? kCpuPanelWidth : 1;
}

}  // namespace spdnn
