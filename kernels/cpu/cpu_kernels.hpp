// The CPU's kernels, for the tables.
#pragma once

#include "spdnn/train_op.hpp"

namespace spdnn {
/// Images per panel: two vectors of AVX-512, so that an index loaded serves both.
inline constexpr std::int64_t kCpuPanelWidth = 32;
[[nodiscard]] const SpmmKernel<float>& spmm_panel_cpu();
[[nodiscard]] const LayoutKernels<float>& layout_cpu();

/// Whether the chosen instruction set multiplies and adds in one rounding, as canonical order
/// needs.
[[nodiscard]] bool has_fma_cpu();
/// Convolutions and poolings in inference; the reference takes both.
[[nodiscard]] const SpmmKernel<float>& conv_tile_cpu();
[[nodiscard]] const SpmmKernel<float>& pool_panel_cpu();
[[nodiscard]] const SpmmKernel<float>& window_reference();

/// Each for float and double.
template <class T>
[[nodiscard]] const LinearKernels<T>& train_sparse_cpu();
template <>
const LinearKernels<float>& train_sparse_cpu<float>();
template <>
const LinearKernels<double>& train_sparse_cpu<double>();
template <class T>
[[nodiscard]] const LinearKernels<T>& train_dense_cpu();
template <>
const LinearKernels<float>& train_dense_cpu<float>();
template <>
const LinearKernels<double>& train_dense_cpu<double>();
template <class T>
[[nodiscard]] const LinearKernels<T>& conv_sparse_cpu();
template <>
const LinearKernels<float>& conv_sparse_cpu<float>();
template <>
const LinearKernels<double>& conv_sparse_cpu<double>();
template <class T>
[[nodiscard]] const LinearKernels<T>& conv_dense_cpu();
template <>
const LinearKernels<float>& conv_dense_cpu<float>();
template <>
const LinearKernels<double>& conv_dense_cpu<double>();
template <class T>
[[nodiscard]] const PoolKernels<T>& pool_cpu();
template <>
const PoolKernels<float>& pool_cpu<float>();
template <>
const PoolKernels<double>& pool_cpu<double>();
template <class T>
void train_update_cpu(const UpdateArgs<T>& args, Stream& stream);
template <>
void train_update_cpu<float>(const UpdateArgs<float>& args, Stream& stream);
template <>
void train_update_cpu<double>(const UpdateArgs<double>& args, Stream& stream);
template <class T>
void sum_of_squares_cpu(const T* x, std::int64_t count, double* result, Stream& stream);
template <>
void sum_of_squares_cpu<float>(const float* x, std::int64_t count, double* result, Stream& stream);
template <>
void sum_of_squares_cpu<double>(const double* x, std::int64_t count, double* result,
                                Stream& stream);
}  // namespace spdnn
