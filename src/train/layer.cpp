// Each kind of layer handed to its kernels.
#include "layer.hpp"

#include <fmt/format.h>

#include <limits>

namespace spdnn::train {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

/// Dense patterns have no arrays.
template <class T>
const LinearKernels<T>& choose(const PatternView& pattern, const LinearKernels<T>& sparse,
                               const LinearKernels<T>& dense) {
  return pattern.row_offsets == nullptr ? dense : sparse;
}

}  // namespace

std::int64_t TrainLayer::inputs() const {
  return std::visit(Overloaded{[&](const LinearForm& /*form*/) { return pattern.cols(); },
                               [](const auto& windowed) { return windowed.window.inputs(); }},
                    form);
}

std::int64_t TrainLayer::units() const {
  const auto* pool = std::get_if<PoolForm>(&form);
  return pool != nullptr ? pool->window.channels : pattern.rows();
}

std::int64_t TrainLayer::features_per_unit() const {
  return std::visit(Overloaded{[](const LinearForm& /*form*/) { return std::int64_t{1}; },
                               [](const auto& windowed) { return windowed.window.out_pixels(); }},
                    form);
}

std::int64_t TrainLayer::workspace() const {
  if (!std::holds_alternative<LinearForm>(form)) return pattern.nnz();
  return pattern.is_dense() ? 0 : 2 * pattern.nnz();
}

TrainLayer TrainLayer::slice(Range range) const {
  TrainLayer part{{}, activation, form};
  if (auto* pool = std::get_if<PoolForm>(&part.form)) {
    pool->window.channels = range.size();
  } else {
    part.pattern = pattern.slice_rows(range);
  }
  return part;
}

TrainLayer linear_layer(Pattern pattern, const Epilogue& activation) {
  return {std::move(pattern), activation, LinearForm{}};
}

TrainLayer conv_layer(const Window2d& window, Pattern pattern, const Epilogue& activation) {
  if (pattern.cols() != window.channels * window.taps()) {
    throw InputError(
        fmt::format("filters with {} columns do not fit {} channels under a window "
                    "of {} × {}; they need {}",
                    pattern.cols(), window.channels, window.kernel_height, window.kernel_width,
                    window.channels * window.taps()));
  }
  return {std::move(pattern), activation, ConvForm{window}};
}

TrainLayer pool_layer(const Window2d& window, LayerKind kind) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  return {{}, {-kInfinity, kInfinity}, PoolForm{window, kind}};
}

template <class T>
void forward(const TrainLayer& layer, const TrainKernels<T>& kernels, const LinearView<T>& weights,
             const Panels<const T>& x, const Panels<T>& y, Stream& stream) {
  std::visit(Overloaded{[&](const LinearForm& /*form*/) {
                          choose(weights.pattern, kernels.sparse, kernels.dense)
                              .forward({weights, layer.activation, x, y, {}}, stream);
                        },
                        [&](const ConvForm& conv) {
                          choose(weights.pattern, kernels.sparse_conv, kernels.dense_conv)
                              .forward({weights, layer.activation, x, y, conv.window}, stream);
                        },
                        [&](const PoolForm& pool) {
                          kernels.pool.forward({pool.kind, pool.window, x, y}, stream);
                        }},
             layer.form);
}

template <class T>
void backward_data(const TrainLayer& layer, const TrainKernels<T>& kernels,
                   const LinearView<T>& weights, const Panels<const T>& dz, const Epilogue& below,
                   const Panels<const T>& x, const Panels<T>& dx, T* workspace, Stream& stream) {
  std::visit(Overloaded{[&](const LinearForm& /*form*/) {
                          choose(weights.pattern, kernels.sparse, kernels.dense)
                              .backward_data({weights, dz, below, x, dx, workspace, {}}, stream);
                        },
                        [&](const ConvForm& conv) {
                          choose(weights.pattern, kernels.sparse_conv, kernels.dense_conv)
                              .backward_data({weights, dz, below, x, dx, workspace, conv.window},
                                             stream);
                        },
                        [&](const PoolForm& pool) {
                          kernels.pool.backward({pool.kind, pool.window, dz, below, x, dx}, stream);
                        }},
             layer.form);
}

template <class T>
void backward_weights(const TrainLayer& layer, const TrainKernels<T>& kernels,
                      const PatternView& pattern, const Panels<const T>& dz,
                      const Panels<const T>& x, const ParameterGradient<T>& gradient,
                      Stream& stream) {
  std::visit(Overloaded{[&](const LinearForm& /*form*/) {
                          choose(pattern, kernels.sparse, kernels.dense)
                              .backward_weights({pattern, dz, x, gradient, {}}, stream);
                        },
                        [&](const ConvForm& conv) {
                          choose(pattern, kernels.sparse_conv, kernels.dense_conv)
                              .backward_weights({pattern, dz, x, gradient, conv.window}, stream);
                        },
                        [](const PoolForm& /*no weights*/) {}},
             layer.form);
}

template <class T>
void backward(const TrainLayer& layer, const TrainKernels<T>& kernels,
              const BackwardDataArgs<T>& args, const ParameterGradient<T>& gradient,
              Stream& stream) {
  const PatternView& pattern = args.layer.pattern;
  const bool linear = std::holds_alternative<LinearForm>(layer.form);
  if (const auto& own = choose(pattern, kernels.sparse, kernels.dense); linear && own.backward) {
    return own.backward(args, gradient, stream);
  }
  backward_data(layer, kernels, args.layer, args.dz, args.activation, args.x, args.dx,
                args.workspace, stream);
  backward_weights(layer, kernels, pattern, args.dz, args.x, gradient, stream);
}

#define SPDNN_INSTANTIATE(T)                                                                    \
  template void forward(const TrainLayer&, const TrainKernels<T>&, const LinearView<T>&,        \
                        const Panels<const T>&, const Panels<T>&, Stream&);                     \
  template void backward_data(const TrainLayer&, const TrainKernels<T>&, const LinearView<T>&,  \
                              const Panels<const T>&, const Epilogue&, const Panels<const T>&,  \
                              const Panels<T>&, T*, Stream&);                                   \
  template void backward_weights(const TrainLayer&, const TrainKernels<T>&, const PatternView&, \
                                 const Panels<const T>&, const Panels<const T>&,                \
                                 const ParameterGradient<T>&, Stream&);                         \
  template void backward(const TrainLayer&, const TrainKernels<T>&, const BackwardDataArgs<T>&, \
                         const ParameterGradient<T>&, Stream&)
SPDNN_INSTANTIATE(float);
SPDNN_INSTANTIATE(double);
SPDNN_INSTANTIATE(Half);
SPDNN_INSTANTIATE(Bfloat16);
#undef SPDNN_INSTANTIATE

}  // namespace spdnn::train
