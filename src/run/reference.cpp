// A second, independent implementation of inference: simple loops over layers, rows and entries,
// with the sampled images side by side.
#include "reference.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

namespace spdnn {
namespace {

constexpr std::size_t kMostFailures = 5;
constexpr double kOtherOrderTolerance = 1e-3;
constexpr double kLowerPrecisionTolerance = 0.05;

/// The sampled images' activations of one layer: [features][images], in both precisions.
struct Activations {
  std::vector<float> canonical;
  std::vector<double> exact;
};

/// One row for all images: both sums in the row's stored order, the fp32 one by fused multiply-add.
template <class T>
[[gnu::always_inline]] inline void add_entry(T value, const T* x, T* sum, std::int64_t images) {
  for (std::int64_t i = 0; i < images; ++i) sum[i] = std::fma(value, x[i], sum[i]);
}

[[gnu::always_inline]] inline void sum_row_body(const CsrView& w, std::int64_t row,
                                                const Activations& x, std::int64_t images,
                                                float* sum, double* exact) {
  std::fill_n(sum, images, 0.0F);
  std::fill_n(exact, images, 0.0);
  for (std::int64_t k = w.row_begin(row); k < w.row_begin(row + 1); ++k) {
    const double value = w.value(k);
    const std::int64_t at = w.col(k) * images;
    add_entry(static_cast<float>(value), x.canonical.data() + at, sum, images);
    add_entry(value, x.exact.data() + at, exact, images);
  }
}

using SumRow = void (*)(const CsrView&, std::int64_t, const Activations&, std::int64_t, float*,
                        double*);

void sum_row_portable(const CsrView& w, std::int64_t row, const Activations& x, std::int64_t images,
                      float* sum, double* exact) {
  sum_row_body(w, row, x, images, sum, exact);
}

#if defined(__x86_64__)
// The same loops with the FMA instruction in place of a library call, which is 20 times slower.
[[gnu::target("avx2,fma")]] void sum_row_fma(const CsrView& w, std::int64_t row,
                                             const Activations& x, std::int64_t images, float* sum,
                                             double* exact) {
  sum_row_body(w, row, x, images, sum, exact);
}
SumRow choose_sum_row() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? sum_row_fma
                                                                         : sum_row_portable;
}
#else
SumRow choose_sum_row() { return sum_row_portable; }
#endif

Activations first_activations(const SampleRequest& request) {
  const auto images = std::ssize(request.ids);
  Activations x;
  x.canonical.assign(static_cast<std::size_t>(request.model->inputs() * images), 0.0F);
  const CsrView& input = request.images->view();
  for (std::int64_t i = 0; i < images; ++i) {
    for (std::int64_t k = input.row_begin(request.ids[i]); k < input.row_begin(request.ids[i] + 1);
         ++k) {
      x.canonical[input.col(k) * images + i] = static_cast<float>(input.value(k));
    }
  }
  x.exact.assign(x.canonical.begin(), x.canonical.end());
  return x;
}

/// Bias and activation of a row of a linear layer, or of one pixel of a filter.
template <class WithWeights>
void finish_row(const WithWeights& layer, std::int64_t row, std::int64_t images, float* sum,
                double* exact) {
  const float bias = layer.bias[layer.bias.size() == 1 ? 0 : row];
  const Epilogue& h = layer.activation;
  for (std::int64_t i = 0; i < images; ++i) {
    sum[i] = std::fmin(std::fmax(sum[i] + bias, h.lower), h.upper);
    exact[i] =
        std::fmin(std::fmax(exact[i] + static_cast<double>(bias), static_cast<double>(h.lower)),
                  static_cast<double>(h.upper));
  }
}

void apply_layer(const SparseLinear& layer, std::int64_t images, const Activations& x,
                 Activations& y, ThreadTeam& team) {
  static const SumRow sum_row = choose_sum_row();
  const CsrView& w = layer.weights.view();
  y.canonical.resize(static_cast<std::size_t>(w.rows * images));
  y.exact.resize(y.canonical.size());
  team.parallel_for(w.rows, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      float* sum = y.canonical.data() + row * images;
      double* exact = y.exact.data() + row * images;
      sum_row(w, row, x, images, sum, exact);
      finish_row(layer, row, images, sum, exact);
    }
  });
}

/// Calls `visit(feature of the plane)` for each input that tap (ky, kx) of a window meets at output
/// pixel (oy, ox): one, or none outside of the plane.
template <class Visit>
void for_input(const Window2d& w, std::int64_t oy, std::int64_t ox, std::int64_t ky,
               std::int64_t kx, const Visit& visit) {
  const std::int64_t y = oy * w.stride + ky - w.pad_top;
  const std::int64_t x = ox * w.stride + kx - w.pad_left;
  if (y >= 0 && y < w.in_height && x >= 0 && x < w.in_width) visit(y * w.in_width + x);
}

/// One output pixel of a filter for all images, in its row's stored order.
void apply_filter(const SparseConv2d& layer, std::int64_t row, std::int64_t oy, std::int64_t ox,
                  std::int64_t images, const Activations& x, float* sum, double* exact) {
  const CsrView& w = layer.weights.view();
  const Window2d& window = layer.window;
  std::fill_n(sum, images, 0.0F);
  std::fill_n(exact, images, 0.0);
  for (std::int64_t k = w.row_begin(row); k < w.row_begin(row + 1); ++k) {
    const std::int64_t channel = w.col(k) / window.taps();
    const std::int64_t tap = w.col(k) % window.taps();
    const auto add = [&](std::int64_t in_plane) {
      const std::int64_t at = (channel * window.in_pixels() + in_plane) * images;
      add_entry(static_cast<float>(w.value(k)), x.canonical.data() + at, sum, images);
      add_entry(w.value(k), x.exact.data() + at, exact, images);
    };
    for_input(window, oy, ox, tap / window.kernel_width, tap % window.kernel_width, add);
  }
  finish_row(layer, row, images, sum, exact);
}

/// One output pixel of a channel for all images, in one precision.
template <class T>
void apply_window(const Pool2d& layer, std::int64_t channel, std::int64_t oy, std::int64_t ox,
                  std::int64_t images, const T* x, T* y) {
  const Window2d& window = layer.window;
  const bool largest = layer.kind == LayerKind::max_pool;
  std::fill_n(y, images, largest ? -std::numeric_limits<T>::infinity() : T{0});
  std::int64_t inputs = 0;
  for (std::int64_t tap = 0; tap < window.taps(); ++tap) {
    for_input(window, oy, ox, tap / window.kernel_width, tap % window.kernel_width,
              [&](std::int64_t in_plane) {
                ++inputs;
                const T* from = x + (channel * window.in_pixels() + in_plane) * images;
                for (std::int64_t i = 0; i < images; ++i) {
                  y[i] = largest ? std::fmax(y[i], from[i]) : y[i] + from[i];
                }
              });
  }
  for (std::int64_t i = 0; i < images && !largest; ++i) y[i] /= static_cast<T>(inputs);
}

/// Calls `pixel(unit, oy, ox, first output)` for every output pixel of a layer with a window.
template <class Pixel>
void for_each_pixel(const Window2d& w, std::int64_t units, std::int64_t images, Activations& y,
                    ThreadTeam& team, const Pixel& pixel) {
  y.canonical.resize(static_cast<std::size_t>(units * w.out_pixels() * images));
  y.exact.resize(y.canonical.size());
  team.parallel_for(units, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t unit = begin; unit < end; ++unit) {
      for (std::int64_t at = 0; at < w.out_pixels(); ++at) {
        pixel(unit, at / w.out_width, at % w.out_width, (unit * w.out_pixels() + at) * images);
      }
    }
  });
}

void apply_layer(const SparseConv2d& layer, std::int64_t images, const Activations& x,
                 Activations& y, ThreadTeam& team) {
  for_each_pixel(layer.window, layer.weights.rows(), images, y, team,
                 [&](std::int64_t row, std::int64_t oy, std::int64_t ox, std::int64_t at) {
                   apply_filter(layer, row, oy, ox, images, x, y.canonical.data() + at,
                                y.exact.data() + at);
                 });
}

void apply_layer(const Pool2d& layer, std::int64_t images, const Activations& x, Activations& y,
                 ThreadTeam& team) {
  for_each_pixel(
      layer.window, layer.window.channels, images, y, team,
      [&](std::int64_t channel, std::int64_t oy, std::int64_t ox, std::int64_t at) {
        apply_window(layer, channel, oy, ox, images, x.canonical.data(), y.canonical.data() + at);
        apply_window(layer, channel, oy, ox, images, x.exact.data(), y.exact.data() + at);
      });
}

/// Compares one image's outputs, feature by feature.
void compare(const SampleRequest& request, std::int64_t index, const Activations& expected,
             SampleOutcome& outcome) {
  const auto images = std::ssize(request.ids);
  const std::int64_t features = request.model->outputs();
  const auto found = request.outputs->find(request.ids[index]);
  double largest = 0.0;
  for (std::int64_t f = 0; f < features; ++f) {
    largest = std::max(largest, std::abs(expected.exact[f * images + index]));
  }
  const double tolerance =
      (request.precision <= Precision::fp16 ? kOtherOrderTolerance : kLowerPrecisionTolerance) *
      std::max(largest, 1.0);
  for (std::int64_t f = 0; f < features; ++f) {
    const float got = found == request.outputs->end() ? 0.0F : found->second[f];
    const float canonical = expected.canonical[f * images + index];
    const double exact = expected.exact[f * images + index];
    const double difference = std::abs(static_cast<double>(got) - exact);
    SampleCheck& check = outcome.check;
    check.max_abs_difference = std::max(check.max_abs_difference, difference);
    const bool right = request.canonical ? got == canonical : difference <= tolerance;
    if (right) continue;
    check.match = false;
    if (outcome.failures.size() < kMostFailures) {
      outcome.failures.push_back(
          fmt::format("image {}, output {}: {} from the run, {} from the reference ({} in float64)",
                      request.ids[index] + 1, f + 1, got, canonical, exact));
    }
    return;
  }
}

}  // namespace

SampleOutcome check_sample(const SampleRequest& request) {
  SampleOutcome outcome;
  const auto images = std::ssize(request.ids);
  outcome.check.images = images;
  if (images == 0) return outcome;
  DeviceSpec spec;
  spec.threads = static_cast<int>(usable_cores().size());
  const std::unique_ptr<Device> device = open_device(spec);
  const std::unique_ptr<Stream> stream = device->make_stream();
  Activations x = first_activations(request);
  Activations y;
  const std::int64_t dead_from = dead_stays_dead_from(*request.model);
  for (std::int64_t l = 0; l < std::ssize(request.model->layers); ++l) {
    if (request.cancel != nullptr && *request.cancel) throw CommError("the run was cancelled");
    const Layer& layer = request.model->layers[l];
    const auto zero = [](auto value) { return value == 0; };
    if (l >= dead_from && std::all_of(x.canonical.begin(), x.canonical.end(), zero) &&
        std::all_of(x.exact.begin(), x.exact.end(), zero)) {
      y.canonical.assign(static_cast<std::size_t>(request.model->outputs() * images), 0.0F);
      y.exact.assign(y.canonical.size(), 0.0);
      x = std::move(y);
      break;
    }
    std::visit([&](const auto& kind) { apply_layer(kind, images, x, y, stream->team()); }, layer);
    const Storage* storage = layer_weights(layer).storage();
    if (request.release_weights && storage != nullptr) storage->release();
    std::swap(x, y);
  }
  for (std::int64_t i = 0; i < images; ++i) compare(request, i, x, outcome);
  return outcome;
}

}  // namespace spdnn
