// What can be said of a network without running it.
#include "spdnn/model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace spdnn {
namespace {

template <class... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <class... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

bool zero_stays_zero(const Layer& layer) {
  const Epilogue h = layer_activation(layer);
  const std::vector<float>& bias = layer_bias(layer);
  return std::all_of(bias.begin(), bias.end(),
                     [&](float b) { return std::min(std::max(b, h.lower), h.upper) == 0.0F; });
}

/// What is wrong with a window; empty where it is right.
std::string window_fault(const Window2d& w) {
  const auto fits = [&](std::int64_t in, std::int64_t kernel, std::int64_t pad, std::int64_t out) {
    return in >= 1 && kernel >= 1 && pad >= 0 && pad < kernel && out >= 1 &&
           (out - 1) * w.stride - pad < in;
  };
  constexpr double kMost = 0x1p31;
  const auto planes = [&](std::int64_t height, std::int64_t width) {
    return static_cast<double>(w.channels) * static_cast<double>(height) *
           static_cast<double>(width);
  };
  if (w.channels >= 1 && w.stride >= 1 && w.stride < std::int64_t{1} << 31 &&
      planes(w.in_height, w.in_width) < kMost && planes(w.kernel_height, w.kernel_width) < kMost &&
      planes(w.out_height, w.out_width) < kMost &&
      fits(w.in_height, w.kernel_height, w.pad_top, w.out_height) &&
      fits(w.in_width, w.kernel_width, w.pad_left, w.out_width)) {
    return "";
  }
  return fmt::format(
      "a window of {} × {} with stride {} and padding {}, {} over {} channels of {} "
      "× {} can't put out {} × {}; every window must hold an input",
      w.kernel_height, w.kernel_width, w.stride, w.pad_top, w.pad_left, w.channels, w.in_height,
      w.in_width, w.out_height, w.out_width);
}

void validate_layer(const Layer& layer, std::size_t index) {
  const auto fail = [&](const std::string& what) {
    throw InputError(fmt::format("layer {}: {}", index + 1, what));
  };
  const LayerKind kind = layer_kind(layer);
  const Csr& weights = layer_weights(layer);
  if (kind != LayerKind::linear) {
    const Window2d w = layer_window(layer);
    const std::string fault = window_fault(w);
    if (!fault.empty()) fail(fault);
    if (kind != LayerKind::conv2d) return;
    if (weights.cols() != w.channels * w.taps()) {
      fail(fmt::format("filters have {} columns, but {} channels under {} × {} need {}",
                       weights.cols(), w.channels, w.kernel_height, w.kernel_width,
                       w.channels * w.taps()));
    }
  }
  const std::vector<float>& bias = layer_bias(layer);
  const auto biases = std::ssize(bias);
  if (biases != 1 && biases != weights.rows()) {
    fail(fmt::format("{} biases for {} outputs; give one each, or one for all", biases,
                     weights.rows()));
  }
  for (const float b : bias) {
    if (!std::isfinite(b)) fail(fmt::format("bias {} is not finite", b));
  }
  const Epilogue h = layer_activation(layer);
  if (!(h.lower <= h.upper)) {
    fail(fmt::format("activation bounds [{}, {}] are reversed", h.lower, h.upper));
  }
}

bool same_bytes(const void* a, const void* b, std::int64_t bytes) {
  return a == b || bytes == 0 || std::memcmp(a, b, static_cast<std::size_t>(bytes)) == 0;
}

/// Equal matrices stored alike; equal ones that are stored in different ways may count as unequal.
bool alike(const CsrView& a, const CsrView& b) {
  const auto size = [](DType type) { return static_cast<std::int64_t>(size_of(type)); };
  return a.rows == b.rows && a.cols == b.cols && a.nnz == b.nnz && a.row_nnz == b.row_nnz &&
         a.index_type == b.index_type && a.value_type == b.value_type &&
         a.shared_value == b.shared_value &&
         (a.row_offsets == nullptr) == (b.row_offsets == nullptr) &&
         same_bytes(a.col_indices, b.col_indices, a.nnz * size(a.index_type)) &&
         same_bytes(a.values, b.values, a.stored_values() * size(a.value_type)) &&
         (a.row_offsets == nullptr || [&] {
           for (std::int64_t row = 0; row < a.rows; ++row) {
             if (a.row_begin(row) != b.row_begin(row)) return false;
           }
           return true;
         }());
}

bool alike(const Layer& a, const Layer& b) {
  return layer_kind(a) == layer_kind(b) && layer_window(a) == layer_window(b) &&
         layer_activation(a) == layer_activation(b) && layer_bias(a) == layer_bias(b) &&
         alike(layer_weights(a).view(), layer_weights(b).view());
}

}  // namespace

Window2d make_window(std::int64_t channels, std::int64_t in_height, std::int64_t in_width,
                     std::int64_t kernel, std::int64_t stride,
                     std::optional<std::int64_t> padding) {
  Window2d w;
  w.channels = channels;
  w.in_height = in_height;
  w.in_width = in_width;
  w.kernel_height = w.kernel_width = kernel;
  w.stride = stride;
  const auto fit = [&](std::int64_t in, std::int64_t& out, std::int64_t& before) {
    if (padding) {
      before = *padding;
      out = (in + 2 * before - kernel) / stride + 1;
      return before < kernel && in + 2 * before >= kernel;
    }
    out = (in + stride - 1) / stride;
    before = std::max<std::int64_t>((out - 1) * stride + kernel - in, 0) / 2;
    return true;
  };
  if (!fit(in_height, w.out_height, w.pad_top) || !fit(in_width, w.out_width, w.pad_left)) {
    throw InputError(
        fmt::format("a window of {0} × {0} with padding {1} does not fit planes of "
                    "{2} × {3}: padding is less than the window, and the padded plane "
                    "no smaller",
                    kernel, *padding, in_height, in_width));
  }
  return w;
}

std::int64_t layer_inputs(const Layer& layer) {
  return std::visit([](const auto& l) { return l.inputs(); }, layer);
}

std::int64_t layer_outputs(const Layer& layer) {
  return std::visit([](const auto& l) { return l.outputs(); }, layer);
}

LayerKind layer_kind(const Layer& layer) {
  return std::visit(Overloaded{[](const SparseLinear& /*l*/) { return LayerKind::linear; },
                               [](const SparseConv2d& /*l*/) { return LayerKind::conv2d; },
                               [](const Pool2d& pool) { return pool.kind; }},
                    layer);
}

Window2d layer_window(const Layer& layer) {
  return std::visit(Overloaded{[](const SparseLinear& /*l*/) { return Window2d{}; },
                               [](const auto& windowed) { return windowed.window; }},
                    layer);
}

const Csr& layer_weights(const Layer& layer) {
  static const Csr none;
  return std::visit(Overloaded{[](const Pool2d& /*l*/) -> const Csr& { return none; },
                               [](const auto& l) -> const Csr& { return l.weights; }},
                    layer);
}

const std::vector<float>& layer_bias(const Layer& layer) {
  using Biases = std::vector<float>;
  static const Biases none;
  return std::visit(Overloaded{[](const Pool2d& /*l*/) -> const Biases& { return none; },
                               [](const auto& l) -> const Biases& { return l.bias; }},
                    layer);
}

Epilogue layer_activation(const Layer& layer) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  return std::visit(Overloaded{[](const Pool2d& /*l*/) {
                                 return Epilogue{-kInfinity, kInfinity};
                               },
                               [](const auto& l) { return l.activation; }},
                    layer);
}

std::int64_t layer_edges(const Layer& layer) {
  return layer_weights(layer).nnz() * layer_window(layer).out_pixels();
}

bool all_linear(const Model& model) {
  return std::all_of(model.layers.begin(), model.layers.end(), [](const Layer& layer) {
    return std::holds_alternative<SparseLinear>(layer);
  });
}

std::int64_t Model::inputs() const { return layers.empty() ? 0 : layer_inputs(layers.front()); }

std::int64_t Model::outputs() const { return layers.empty() ? 0 : layer_outputs(layers.back()); }

std::int64_t Model::edges() const {
  std::int64_t sum = 0;
  for (const Layer& layer : layers) sum += layer_edges(layer);
  return sum;
}

std::int64_t Model::weight_bytes() const {
  std::int64_t sum = 0;
  for (const Layer& layer : layers) {
    sum += layer_weights(layer).view().bytes();
  }
  return sum;
}

void validate(const Model& model) {
  if (model.layers.empty()) throw InputError("the model has no layers; give at least one");
  for (std::size_t l = 0; l < model.layers.size(); ++l) {
    validate_layer(model.layers[l], l);
    if (l == 0) continue;
    const std::int64_t given = layer_outputs(model.layers[l - 1]);
    const std::int64_t taken = layer_inputs(model.layers[l]);
    if (given != taken) {
      throw InputError(
          fmt::format("layer {} takes {} inputs, but layer {} before it has {} outputs", l + 1,
                      taken, l, given));
    }
  }
}

std::int64_t dead_stays_dead_from(const Model& model) {
  auto from = std::ssize(model.layers);
  while (from > 0 && zero_stays_zero(model.layers[from - 1])) --from;
  return from;
}

std::int64_t alike_from(const Model& model) {
  auto from = std::max<std::int64_t>(std::ssize(model.layers) - 1, 0);
  while (from > 0 && alike(model.layers[from - 1], model.layers[from])) --from;
  return from;
}

}  // namespace spdnn
