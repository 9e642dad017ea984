// Training by plain loops: one thread, every sum in double, rounded once at the end.
#include <algorithm>
#include <cmath>

#include "reference/places.hpp"
#include "reference/reference.hpp"

namespace spdnn {
namespace {

bool is_dense(const PatternView& w) { return w.row_offsets == nullptr; }

/// Calls `visit(row, col, entry)` for every connection.
template <class Visit>
void for_each_entry(const PatternView& w, const Visit& visit) {
  for (std::int64_t row = 0; row < w.rows; ++row) {
    if (is_dense(w)) {
      for (std::int64_t col = 0; col < w.cols; ++col) visit(row, col, row * w.cols + col);
      continue;
    }
    for (std::int64_t k = w.row_offsets[row]; k < w.row_offsets[row + 1]; ++k) {
      visit(row, std::int64_t{w.col_indices[k]}, k);
    }
  }
}

template <class T>
void forward(const ForwardArgs<T>& args, Stream& /*stream*/) {
  const PatternView& w = args.layer.pattern;
  const std::int64_t pixels = args.window.out_pixels();
  std::vector<double> sums(static_cast<std::size_t>(w.rows * pixels));
  for (std::int64_t image = 0; image < args.x.count() * args.x.width; ++image) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for_each_entry(w, [&](std::int64_t row, std::int64_t col, std::int64_t k) {
      const auto value = static_cast<double>(args.layer.values[k]);
      for_each_place(args.window, col, [&](std::int64_t pixel, std::int64_t feature) {
        sums[row * pixels + pixel] += value * args.x.at(feature, image);
      });
    });
    for (std::int64_t f = 0; f < std::ssize(sums); ++f) {
      const double sum = sums[f] + args.layer.bias[f / pixels];
      args.y.at(f, image) =
          static_cast<T>(std::fmin(std::fmax(sum, static_cast<double>(args.activation.lower)),
                                   static_cast<double>(args.activation.upper)));
    }
  }
}

/// The gradient by what the layer below put out, through that layer's activation.
template <class T>
void store_masked(const std::vector<double>& sums, const Epilogue& activation,
                  const Panels<const T>& x, std::int64_t image, const Panels<T>& dx) {
  for (std::int64_t f = 0; f < std::ssize(sums); ++f) {
    const T y = x.at(f, image);
    const bool inside = y > T{activation.lower} && y < T{activation.upper};
    dx.at(f, image) = inside ? static_cast<T>(sums[f]) : T{0};
  }
}

template <class T>
void backward_data(const BackwardDataArgs<T>& args, Stream& /*stream*/) {
  const std::int64_t pixels = args.window.out_pixels();
  std::vector<double> sums(static_cast<std::size_t>(args.x.features));
  for (std::int64_t image = 0; image < args.x.count() * args.x.width; ++image) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for_each_entry(args.layer.pattern, [&](std::int64_t row, std::int64_t col, std::int64_t k) {
      const auto value = static_cast<double>(args.layer.values[k]);
      for_each_place(args.window, col, [&](std::int64_t pixel, std::int64_t feature) {
        sums[feature] += value * args.dz.at(row * pixels + pixel, image);
      });
    });
    store_masked(sums, args.activation, args.x, image, args.dx);
  }
}

template <class T>
void backward_weights(const BackwardWeightsArgs<T>& args, Stream& /*stream*/) {
  const ParameterGradient<T>& to = args.gradient;
  const std::int64_t pixels = args.window.out_pixels();
  for_each_entry(args.pattern, [&](std::int64_t row, std::int64_t col, std::int64_t k) {
    double sum = to.adds_up ? static_cast<double>(to.values[k]) : 0.0;
    for_each_place(args.window, col, [&](std::int64_t pixel, std::int64_t feature) {
      for (std::int64_t image = 0; image < args.x.batch; ++image) {
        sum += static_cast<double>(args.dz.at(row * pixels + pixel, image)) *
               args.x.at(feature, image);
      }
    });
    to.values[k] = static_cast<T>(sum);
  });
  for (std::int64_t row = 0; row < args.pattern.rows; ++row) {
    double sum = to.adds_up ? static_cast<double>(to.bias[row]) : 0.0;
    for (std::int64_t f = row * pixels; f < (row + 1) * pixels; ++f) {
      for (std::int64_t image = 0; image < args.dz.batch; ++image) sum += args.dz.at(f, image);
    }
    to.bias[row] = static_cast<T>(sum);
  }
}

template <class T>
void update(const UpdateArgs<T>& args, Stream& /*stream*/) {
  const T scale = args.gradient_scale();
  for (std::int64_t i = 0; i < args.count; ++i) {
    T& p = args.parameters[i];
    T g = args.gradient[i] * scale;
    if (args.kind != OptimizerKind::adamw) g += args.decay * p;
    switch (args.kind) {
      case OptimizerKind::sgd: p -= args.rate * g; break;
      case OptimizerKind::momentum:
      case OptimizerKind::nesterov: {
        T& m = args.first[i];
        m = args.momentum * m + g;
        p -= args.rate * (args.kind == OptimizerKind::nesterov ? g + args.momentum * m : m);
        break;
      }
      case OptimizerKind::adam:
      case OptimizerKind::adamw: {
        T& m = args.first[i];
        T& v = args.second[i];
        m = args.beta1 * m + (T{1} - args.beta1) * g;
        v = args.beta2 * v + (T{1} - args.beta2) * g * g;
        if (args.kind == OptimizerKind::adamw) p -= args.rate * args.decay * p;
        p -= args.rate * (m / args.correction1) / (std::sqrt(v / args.correction2) + args.epsilon);
        break;
      }
    }
  }
}

template <class T>
void sum_of_squares(const T* x, std::int64_t count, double* result, Stream& /*stream*/) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
  *result = sum;
}

}  // namespace

template <class T>
const TrainKernels<T>& train_reference() {
  static constexpr LinearKernels<T> linear = {forward<T>, backward_data<T>, backward_weights<T>};
  static constexpr TrainKernels<T> kernels = {
      "reference",
      DeviceKind::cpu,
      linear,
      linear,
      linear,
      linear,
      {pool_forward_reference<T>, pool_backward_reference<T>},
      loss_part_cpu<T>,
      loss_cpu<T>,
      update<T>,
      sum_of_squares<T>};
  return kernels;
}

template const TrainKernels<float>& train_reference<float>();
template const TrainKernels<double>& train_reference<double>();

}  // namespace spdnn
