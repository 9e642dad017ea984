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
  return std::visit(Overloaded{[](const SparseLinear& linear) {
                      return std::all_of(linear.bias.begin(), linear.bias.end(), [&](float b) {
                        return std::min(std::max(b, linear.activation.lower),
                                        linear.activation.upper) == 0.0F;
                      });
                    }},
                    layer);
}

void validate_layer(const Layer& layer, std::size_t index) {
  const auto fail = [&](const std::string& what) {
    throw InputError(fmt::format("layer {}: {}", index + 1, what));
  };
  std::visit(Overloaded{[&](const SparseLinear& linear) {
               const auto biases = std::ssize(linear.bias);
               if (biases != 1 && biases != linear.outputs()) {
                 fail(fmt::format("{} biases for {} outputs; give one each, or one for all", biases,
                                  linear.outputs()));
               }
               for (const float b : linear.bias) {
                 if (!std::isfinite(b)) fail(fmt::format("bias {} is not finite", b));
               }
               const Epilogue& h = linear.activation;
               if (!(h.lower <= h.upper)) {
                 fail(fmt::format("activation bounds [{}, {}] are reversed", h.lower, h.upper));
               }
             }},
             layer);
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
  const auto& x = std::get<SparseLinear>(a);
  const auto& y = std::get<SparseLinear>(b);
  return x.activation == y.activation && x.bias == y.bias &&
         alike(x.weights.view(), y.weights.view());
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

std::int64_t layer_edges(const Layer& layer) {
  return std::visit([](const auto& l) { return l.weights.nnz(); }, layer);
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
    sum += std::visit([](const auto& l) { return l.weights.view().bytes(); }, layer);
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
