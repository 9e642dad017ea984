// The tables of kernels as a CUDA build has them, without those of NVIDIA's libraries: the same
// launchers and kernels, on the SIMT layer.
#include <array>

#include "chain_layered.hpp"
#include "cpu/cpu_kernels.hpp"
#include "cuda/cuda_kernels.hpp"
#include "cuda/train_kernels.hpp"
#include "message_kernels.hpp"
#include "reference/reference.hpp"
#include "rewire_kernels.hpp"

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

template <>
const MessageKernels<float>& message_kernels<float>(DeviceKind kind) {
  return kind == DeviceKind::cuda ? message_cuda<float>() : message_cpu<float>();
}
template <>
const MessageKernels<double>& message_kernels<double>(DeviceKind kind) {
  return kind == DeviceKind::cuda ? message_cuda<double>() : message_cpu<double>();
}
template <>
const MessageKernels<Half>& message_kernels<Half>(DeviceKind /*kind*/) {
  return message_cuda<Half>();
}
template <>
const MessageKernels<Bfloat16>& message_kernels<Bfloat16>(DeviceKind /*kind*/) {
  return message_cuda<Bfloat16>();
}

const RewireKernels* rewire_kernels(DeviceKind kind) {
  return kind == DeviceKind::cuda ? &rewire_cuda() : nullptr;
}

std::int64_t panel_width(const DeviceInfo& device) {
  return device.kind == DeviceKind::cuda ? kCudaPanelWidth : kCpuPanelWidth;
}

template <>
std::span<const TrainKernels<float>> train_kernels<float>() {
  static const auto table = std::to_array({train_cuda<float>(), train_reference<float>()});
  return table;
}
template <>
std::span<const TrainKernels<double>> train_kernels<double>() {
  static const auto table = std::to_array({train_cuda<double>(), train_reference<double>()});
  return table;
}
template <>
std::span<const TrainKernels<Half>> train_kernels<Half>() {
  static const auto table = std::to_array({train_cuda<Half>()});
  return table;
}
template <>
std::span<const TrainKernels<Bfloat16>> train_kernels<Bfloat16>() {
  static const auto table = std::to_array({train_cuda<Bfloat16>()});
  return table;
}

}  // namespace spdnn
