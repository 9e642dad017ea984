// The tables of kernels as a CUDA build has them, without those of NVIDIA's libraries: the same
// launchers and kernels, on the SIMT layer.
#include <array>

#include "chain_layered.hpp"
#include "cpu/cpu_kernels.hpp"
#include "cuda/cuda_kernels.hpp"
#include "cuda/train_kernels.hpp"
#include "reference/reference.hpp"

namespace spdnn {

template <>
std::span<const SpmmKernel<float>> spmm_kernels<float>() {
  static const auto table = std::to_array<SpmmKernel<float>>(
      {spmm_block_mma_bf16(), spmm_block_mma_tf32(), spmm_block_mma_fp16(), spmm_row_group_cuda(),
       spmm_tile_cuda(), spmm_row_warp_cuda(), spmm_reference_cuda(), spmm_panel_cpu(),
       spmm_reference<float>()});
  return table;
}

template <>
std::span<const SpmmKernel<float>> window_kernels<float>() {
  static const auto table = std::to_array<SpmmKernel<float>>(
      {conv_tile_cuda(), pool_cuda(), conv_tile_cpu(), pool_panel_cpu(), window_reference()});
  return table;
}

template <>
std::span<const ChainKernel<float>> chain_kernels<float>() {
  static const auto table = std::to_array<ChainKernel<float>>(
      {chain_resident_cuda(), chain_layered(DeviceKind::cuda), chain_layered(DeviceKind::cpu)});
  return table;
}

template <>
const LayoutKernels<float>& layout_kernels<float>(DeviceKind kind) {
  return kind == DeviceKind::cuda ? layout_cuda() : layout_cpu();
}

std::int64_t panel_width(const DeviceInfo& device) {
  return device.kind == DeviceKind::cuda ? kCudaPanelWidth : kCpuPanelWidth;
}

namespace {

template <class T>
std::span<const TrainKernels<T>> train_table() {
  static const auto table =
      std::to_array<TrainKernels<T>>({{"cuda",
                                       DeviceKind::cuda,
                                       train_sparse_cuda<T>(),
                                       train_dense_cuda<T>(),
                                       train_sparse_conv_cuda<T>(),
                                       train_dense_conv_cuda<T>(),
                                       {pool_forward_cuda<T>, pool_backward_cuda<T>},
                                       loss_cuda<T>,
                                       train_update_cuda<T>,
                                       sum_of_squares_cuda<T>},
                                      train_reference<T>()});
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

}  // namespace spdnn
