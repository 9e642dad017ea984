// The operations of training and the ordered tables of what performs them.
//
// A layer is Y = h(W·X + b), with W sparse on a fixed pattern or dense. With dZ the gradient of its
// sums W·X + b, backward_data gives dX = Wᵀ·dZ, which the layer below wants as its own dZ: times
// the slope of that layer's h. backward_weights gives dW = dZ·Xᵀ on W's pattern, and db.
//
// A convolution is the same with W applied at each place of a window: row f gives the whole plane f
// of the output, column j stands for one place of the window in one channel. A range of rows is
// thus a range of the output's features for both.
//
// T is what activations, their gradients and the values of a layer are stored as: float, double, or
// on a GPU 16 bits of them. Sums, biases, gradients of parameters and losses are Wide<T>.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "spdnn/half.hpp"
#include "spdnn/op.hpp"

namespace spdnn {

/// Where the connections of a layer are, by rows (CSR) and by columns (CSC). There is one array of
/// values, in CSR order; `entries` says where it holds the k-th connection in CSC order.
struct PatternView {
  std::int64_t rows = 0, cols = 0, nnz = 0;
  const std::int64_t* row_offsets = nullptr;   ///< rows + 1
  const std::uint32_t* col_indices = nullptr;  ///< nnz, ascending in a row
  const std::int64_t* col_offsets = nullptr;   ///< cols + 1
  const std::uint32_t* row_indices = nullptr;  ///< nnz in CSC order, ascending in a column
  const std::uint32_t* entries = nullptr;      ///< nnz in CSC order
};

/// A layer's shape and parameters. A dense one has no arrays in its pattern, nnz = rows · cols, and
/// its values are row-major.
template <class T>
struct LinearView {
  PatternView pattern;
  const T* values = nullptr;      ///< nnz
  const Wide<T>* bias = nullptr;  ///< rows
};

/// Y = h(W·X + b). All lanes of a panel are computed.
template <class T>
struct ForwardArgs {
  LinearView<T> layer;
  Epilogue activation;
  Panels<const T> x;     ///< features = cols; of a convolution the window's inputs
  Panels<T> y;           ///< features = rows · pixels of the output; batch and width as in x
  Window2d window = {};  ///< of a convolution
};

/// dX = (Wᵀ·dZ) ⊙ h′, h the activation that made X: 1 where x lies between its bounds, else 0.
template <class T>
struct BackwardDataArgs {
  LinearView<T> layer;
  Panels<const T> dz;      ///< as the layer's y; 0 in lanes that hold no image
  Epilogue activation;     ///< of the layer below
  Panels<const T> x;       ///< what the layer below put out
  Panels<T> dx;            ///< as x
  T* workspace = nullptr;  ///< nnz: the values in CSC order; of dense linear layers none
  Window2d window = {};    ///< of a convolution
};

/// Where the gradient by a layer's values and biases goes.
template <class T>
struct ParameterGradient {
  Wide<T>* values = nullptr;  ///< nnz
  Wide<T>* bias = nullptr;    ///< rows
  bool adds_up = false;       ///< both already hold that of images before these; else overwritten
};

/// dW = dZ·Xᵀ on the pattern, db = the sum of dZ over the images.
template <class T>
struct BackwardWeightsArgs {
  PatternView pattern;
  Panels<const T> dz;  ///< as the layer's y; 0 in lanes that hold no image
  Panels<const T> x;   ///< the layer's input; finite in all lanes
  ParameterGradient<T> gradient;
  Window2d window = {};  ///< of a convolution
};

/// Each output is the largest or the mean of the inputs in its window, channel by channel. A window
/// holds at least one input; places outside of the plane are left out of both.
template <class T>
struct PoolForwardArgs {
  LayerKind kind = LayerKind::max_pool;  ///< or average_pool
  Window2d window;
  Panels<const T> x;  ///< features = the window's inputs
  Panels<T> y;        ///< features = channels · pixels of the output; batch and width as in x
};

/// dX from dY: what a window hands back goes to its largest input, the first of equal ones, or in
/// equal parts to all of them; then times the slope of h, the activation that made X.
template <class T>
struct PoolBackwardArgs {
  LayerKind kind = LayerKind::max_pool;  ///< or average_pool
  Window2d window;
  Panels<const T> dy;   ///< as the layer's y; 0 in lanes that hold no image
  Epilogue activation;  ///< of the layer below
  Panels<const T> x;    ///< what the layer below put out
  Panels<T> dx;         ///< as x
};

enum class Loss : std::uint8_t { cross_entropy, mean_squared_error };

/// What some outputs say of an image's loss: words from which ranks that have other outputs each
/// find it together.
struct LossPart {
  static constexpr std::int64_t top = 0;       ///< the largest of them; −∞ where there are none
  static constexpr std::int64_t which = 1;     ///< its number, the first of equal ones
  static constexpr std::int64_t sum = 2;       ///< Σ exp(y − top), or Σ (y − e_label)²
  static constexpr std::int64_t at_label = 3;  ///< the label's output; −∞ where it is not here
  static constexpr std::int64_t words = 4;
  /// Numbers are words as well: as many as floats tell apart.
  static constexpr std::int64_t most_outputs = std::int64_t{1} << 24U;
};

/// The loss of a batch and its gradient by the last layer's sums, through that layer's activation.
///
/// cross_entropy: −log softmax(y)[label]; mean_squared_error: Σ (y − e_label)² / (2 · outputs). A
/// rank has some of the outputs, or all of them. `loss_part` finds what they say; `loss` takes what
/// all ranks' parts say, in order of rank, so that all find the same.
template <class T>
struct LossArgs {
  Loss loss = Loss::cross_entropy;
  Epilogue activation;                     ///< of the last layer
  Panels<const T> y;                       ///< what this rank's rows of it put out
  Panels<Wide<T>> part;                    ///< features = LossPart::words; batch and width as y
  Panels<const Wide<T>> parts;             ///< of all ranks, one after another
  std::int64_t outputs = 0;                ///< of all ranks
  const std::uint32_t* numbers = nullptr;  ///< of y's features among them; null: 0, 1, …
  const std::int32_t* labels = nullptr;    ///< batch of them, each below `outputs`
  Wide<T> scale = 1;                       ///< of the gradient, e.g. 1 / images of all ranks
  /// As y, 0 in lanes without an image. What `loss_part` left there is for `loss`.
  Panels<T> dz;
  double* loss_sum = nullptr;  ///< one: the sum over the images
  bool adds_up = false;        ///< `loss_sum` already holds that of images before these
  /// Batch of them: the output that is largest, the first of equal ones.
  std::int32_t* predictions = nullptr;
  /// Where not null, the gradient is multiplied by what stands there in the device's memory, too.
  const float* loss_scale = nullptr;
};

enum class OptimizerKind : std::uint8_t { sgd, momentum, nesterov, adam, adamw };

/// Doubles that `sum_of_squares` needs room for: the sum, then those of its parts.
inline constexpr std::int64_t kSquaresRoom = 1 + 512;

/// The scale of fp16's losses, in the device's memory: gradients too small for fp16 are multiplied
/// up to it on the way back, and where some become too large, the step changes nothing and the
/// scale is halved (Micikevicius et al., Mixed Precision Training, ICLR 2018).
struct LossScale {
  float scale = 65536;     ///< of the next loss
  std::int64_t good = 0;   ///< steps with finite gradients since it changed
  std::int64_t taken = 0;  ///< steps with finite gradients at all
  /// Of the gradient that was judged last: 1 / its scale, 0 where it is not finite, and what
  /// `UpdateArgs` names alike, of the steps taken.
  double unscale = 1;
  float correction1 = 1, correction2 = 1;
};

/// Judges a gradient by Σ g², and sets the scale of the next loss: twice as much after `every` good
/// ones, half as much, but no less than 1, after one that is not finite.
struct JudgeArgs {
  LossScale* scale = nullptr;
  const double* squares = nullptr;
  std::int64_t every = 2000;
  double beta1 = 0, beta2 = 0;  ///< of adam and adamw
};

/// One step of an optimiser on the parameters `[0, count)`.
///
/// With g the gradient, clipped, plus decay · p except for adamw:
/// sgd p −= rate · g; momentum m = momentum · m + g, p −= rate · m; nesterov the same, then
/// p −= rate · (g + momentum · m); adam (Kingma and Ba, ICLR 2015) m and v as decaying means of g
/// and g², p −= rate · m̂ / (√v̂ + epsilon), m̂ = m / correction1, v̂ = v / correction2; adamw
/// (Loshchilov and Hutter, ICLR 2019) as adam, with p −= rate · decay · p beside it.
template <class T>
struct UpdateArgs {
  OptimizerKind kind = OptimizerKind::sgd;
  std::int64_t count = 0;
  T* parameters = nullptr;
  const T* gradient = nullptr;
  T* first = nullptr;   ///< m; null for sgd
  T* second = nullptr;  ///< v; adam and adamw
  T rate = 0, momentum = 0, beta1 = 0, beta2 = 0, epsilon = 0, decay = 0;
  T correction1 = 1, correction2 = 1;
  /// Σ g² of all parameters there are, in the device's memory, so that no host waits for it: a
  /// gradient longer than `clip_norm` is scaled down to that. Null: none is.
  const double* squares = nullptr;
  double clip_norm = std::numeric_limits<double>::infinity();
  /// Where the loss was scaled, on a GPU: the corrections are taken from there. Judged before.
  const LossScale* loss_scale = nullptr;

  /// What the gradient is multiplied by; 0: it is not finite, and nothing is to change.
  [[nodiscard]] SPDNN_HOST_DEVICE T gradient_scale() const {
    const double unscale = loss_scale == nullptr ? 1.0 : loss_scale->unscale;
    if (squares == nullptr) return static_cast<T>(unscale);
    const double norm = std::sqrt(*squares) * unscale;
    return static_cast<T>(norm > clip_norm ? clip_norm / norm * unscale : unscale);
  }
};

/// What layers with weights need on one kind of device.
template <class T>
struct LinearKernels {
  void (*forward)(const ForwardArgs<T>& args, Stream& stream);
  void (*backward_data)(const BackwardDataArgs<T>& args, Stream& stream);
  void (*backward_weights)(const BackwardWeightsArgs<T>& args, Stream& stream);
  /// Both gradients of a layer at once, to the same bits; the workspace is 2 · nnz. Null where that
  /// takes no less time than one after the other.
  void (*backward)(const BackwardDataArgs<T>& args, const ParameterGradient<T>& gradient,
                   Stream& stream) = nullptr;
};

template <class T>
struct PoolKernels {
  void (*forward)(const PoolForwardArgs<T>& args, Stream& stream);
  void (*backward)(const PoolBackwardArgs<T>& args, Stream& stream);
};

/// Everything training needs on one kind of device. Each result has one order of summation, which
/// does not depend on how many threads work: equal arguments give equal bits.
template <class T>
struct TrainKernels {
  std::string_view name;
  DeviceKind device;
  LinearKernels<T> sparse, dense;            ///< of linear layers
  LinearKernels<T> sparse_conv, dense_conv;  ///< of convolutions
  PoolKernels<T> pool;
  void (*loss_part)(const LossArgs<T>& args, Stream& stream);
  void (*loss)(const LossArgs<T>& args, Stream& stream);
  void (*update)(const UpdateArgs<Wide<T>>& args, Stream& stream);
  /// Σ x² of `count` elements, in double, to `*result` in memory of the device, which has room for
  /// `kSquaresRoom`.
  void (*sum_of_squares)(const Wide<T>* x, std::int64_t count, double* result, Stream& stream);
  /// On a GPU alone: stored[i] ← x[i], `count` of them, and what goes with scaled losses.
  void (*store)(const Wide<T>* x, std::int64_t count, T* stored, Stream& stream) = nullptr;
  void (*judge)(const JudgeArgs& args, Stream& stream) = nullptr;
};

/// All of them in this build, the preferred first, the reference of each device kind last.
template <class T>
[[nodiscard]] std::span<const TrainKernels<T>> train_kernels();
template <>
std::span<const TrainKernels<float>> train_kernels<float>();
template <>
std::span<const TrainKernels<double>> train_kernels<double>();
/// Those that store 16 bits: none without a GPU.
template <>
std::span<const TrainKernels<Half>> train_kernels<Half>();
template <>
std::span<const TrainKernels<Bfloat16>> train_kernels<Bfloat16>();

}  // namespace spdnn
