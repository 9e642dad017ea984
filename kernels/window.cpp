// Layers with a window in inference, on the CPU: the kernels of training, told which rows to
// compute, and the flags of living images after them. A row of y is a plane, so that rows are a
// shift of y's memory; filters that are full run as dense ones.
#include <algorithm>
#include <vector>

#include "cpu/cpu_kernels.hpp"
#include "reference/reference.hpp"

namespace spdnn {
namespace {

/// Filters as the training kernels take them.
struct Filters {
  std::vector<std::int64_t> row_offsets;
  std::vector<std::uint32_t> col_indices;
  std::vector<float> values;
  bool dense = false;  ///< every column in every row, ascending

  explicit Filters(const CsrView& w) : dense(w.nnz == w.rows * w.cols) {
    for (std::int64_t row = 0; row <= w.rows; ++row) row_offsets.push_back(w.row_begin(row));
    for (std::int64_t k = 0; k < w.nnz; ++k) {
      col_indices.push_back(static_cast<std::uint32_t>(w.col(k)));
      values.push_back(static_cast<float>(w.value(k)));
      dense = dense && w.col(k) == k % w.cols;
    }
  }
  [[nodiscard]] PatternView rows(Range range, std::int64_t cols) const {
    PatternView view;
    view.rows = range.size();
    view.cols = cols;
    view.nnz = row_offsets[range.end] - row_offsets[range.begin];
    if (dense) return view;
    view.row_offsets = row_offsets.data() + range.begin;
    view.col_indices = col_indices.data();
    return view;
  }
};

Range rows_of(const SpmmArgs<float>& args, std::int64_t rows) {
  return {rows * args.rows.begin / args.rows.of, rows * args.rows.end / args.rows.of};
}

/// The images really there, and y's planes from `row` on.
Panels<const float> known(Panels<const float> x) {
  if (x.live != nullptr) x.batch = *x.live;
  x.live = nullptr;
  return x;
}
Panels<float> planes_from(const SpmmArgs<float>& args, std::int64_t row) {
  Panels<float> y = args.y;
  y.batch = args.y.live == nullptr ? args.y.batch : *args.y.live;
  y.live = nullptr;
  y.data += row * args.window.out_pixels() * y.width;
  return y;
}

/// Whether any of `features` is not 0, image by image.
void find_alive(const Panels<float>& y, std::int64_t features, std::uint8_t* alive) {
  if (alive == nullptr) return;
  std::vector<std::uint8_t> any(static_cast<std::size_t>(y.width));
  for (std::int64_t p = 0; p < y.count(); ++p) {
    std::fill(any.begin(), any.end(), std::uint8_t{0});
    const float* at = y.panel(p);
    for (std::int64_t f = 0; f < features; ++f, at += y.width) {
      for (std::int64_t lane = 0; lane < y.width; ++lane) any[lane] |= at[lane] != 0.0F ? 1 : 0;
    }
    std::copy_n(any.begin(), std::min(y.width, y.batch - p * y.width), alive + p * y.width);
  }
}

PreparedWeights prepare_filters(const CsrView& host, Device& device, Stream& stream) {
  PreparedWeights prepared = upload_csr(host, device, stream);
  prepared.format = std::make_shared<const Filters>(host);
  return prepared;
}

/// `kernels(dense)` computes the filters.
template <class Choose>
void run_conv(const SpmmArgs<float>& args, Stream& stream, const Choose& kernels) {
  const auto& filters = *static_cast<const Filters*>(args.weights->format.get());
  const CsrView& w = args.weights->csr;
  const Range rows = rows_of(args, w.rows);
  std::vector<float> bias;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) bias.push_back(args.bias.at(row));
  const Panels<float> y = planes_from(args, rows.begin);
  const float* values =
      filters.values.data() + (filters.dense ? filters.row_offsets[rows.begin] : 0);
  if (rows.size() > 0) {
    kernels(filters.dense)
        .forward({{filters.rows(rows, w.cols), values, bias.data()},
                  args.epilogue,
                  known(args.x),
                  y,
                  args.window},
                 stream);
  }
  find_alive(y, rows.size() * args.window.out_pixels(), args.alive);
}

void run_pool(const SpmmArgs<float>& args, Stream& stream, const PoolKernels<float>& kernels) {
  const Range channels = rows_of(args, args.window.channels);
  Window2d window = args.window;
  window.channels = channels.size();
  Panels<const float> x = known(args.x);
  x.data += channels.begin * window.in_pixels() * x.width;
  const Panels<float> y = planes_from(args, channels.begin);
  if (channels.size() > 0) kernels.forward({args.kind, window, x, y}, stream);
  find_alive(y, channels.size() * window.out_pixels(), args.alive);
}

std::optional<std::string> declines_conv(const SpmmShape& shape, const DeviceInfo& /*device*/) {
  if (shape.kind != LayerKind::conv2d) return "the layer is no convolution";
  if (shape.value_type != DType::f32) return "values are not fp32";
  if (!has_fma_cpu()) return "the processor has no fused multiply-add";
  if (shape.panel_width % 32 != 0) return "panels are not a multiple of 32 images wide";
  return std::nullopt;
}

std::optional<std::string> declines_pool(const SpmmShape& shape, const DeviceInfo& /*device*/) {
  if (shape.kind == LayerKind::conv2d) return "the layer is no pooling";
  if (shape.panel_width % 32 != 0) return "panels are not a multiple of 32 images wide";
  return std::nullopt;
}

std::optional<std::string> takes_all(const SpmmShape& /*shape*/, const DeviceInfo& /*device*/) {
  return std::nullopt;
}

void run_conv_tile(const SpmmArgs<float>& args, Stream& stream) {
  run_conv(args, stream, [](bool dense) -> const LinearKernels<float>& {
    return dense ? conv_dense_cpu<float>() : conv_sparse_cpu<float>();
  });
}

void run_pool_panel(const SpmmArgs<float>& args, Stream& stream) {
  run_pool(args, stream, pool_cpu<float>());
}

void run_reference(const SpmmArgs<float>& args, Stream& stream) {
  const TrainKernels<float>& reference = train_reference<float>();
  if (args.kind != LayerKind::conv2d) return run_pool(args, stream, reference.pool);
  run_conv(args, stream, [&](bool dense) -> const LinearKernels<float>& {
    return dense ? reference.dense_conv : reference.sparse_conv;
  });
}

}  // namespace

const SpmmKernel<float>& conv_tile_cpu() {
  static constexpr SpmmKernel<float> kernel = {"conv_tile",   DeviceKind::cpu, Order::canonical,
                                               declines_conv, prepare_filters, run_conv_tile};
  return kernel;
}

const SpmmKernel<float>& pool_panel_cpu() {
  static constexpr SpmmKernel<float> kernel = {"pool",        DeviceKind::cpu, Order::canonical,
                                               declines_pool, upload_csr,      run_pool_panel};
  return kernel;
}

const SpmmKernel<float>& window_reference() {
  static constexpr SpmmKernel<float> kernel = {"reference", DeviceKind::cpu, Order::other,
                                               takes_all,   prepare_filters, run_reference};
  return kernel;
}

}  // namespace spdnn
