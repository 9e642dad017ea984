// This project: one rank whose kernels use all the threads.
#include <limits>

#include "spdnn/train_op.hpp"
#include "train_step/step.hpp"

namespace spdnn::bench {
namespace {

constexpr Epilogue kRelu = {0.0F, std::numeric_limits<float>::infinity()};

/// A pattern in both directions with everything a step needs of its layer.
struct Layer {
  PatternView pattern;
  std::vector<std::int64_t> col_offsets;
  std::vector<std::uint32_t> row_indices, entries;
  std::vector<float> values, gradient, momentum, bias, bias_gradient;
};

void build_columns(const StepCase::Layer& from, std::int64_t width, Layer& layer) {
  layer.col_offsets.assign(static_cast<std::size_t>(width) + 1, 0);
  layer.row_indices.resize(from.values.size());
  layer.entries.resize(from.values.size());
  for (const std::uint32_t col : from.col_indices) ++layer.col_offsets[col + 1];
  for (std::int64_t c = 0; c < width; ++c) layer.col_offsets[c + 1] += layer.col_offsets[c];
  std::vector<std::int64_t> next = layer.col_offsets;
  for (std::int64_t row = 0; row < width; ++row) {
    for (std::int64_t k = from.row_offsets[row]; k < from.row_offsets[row + 1]; ++k) {
      const std::int64_t at = next[from.col_indices[k]]++;
      layer.row_indices[at] = static_cast<std::uint32_t>(row);
      layer.entries[at] = static_cast<std::uint32_t>(k);
    }
  }
  const auto nnz = static_cast<std::int64_t>(from.values.size());
  layer.pattern = {width,
                   width,
                   nnz,
                   from.row_offsets.data(),
                   from.col_indices.data(),
                   layer.col_offsets.data(),
                   layer.row_indices.data(),
                   layer.entries.data()};
  layer.values = from.values;
  layer.gradient.resize(from.values.size());
  layer.momentum.resize(from.values.size());
  layer.bias.resize(static_cast<std::size_t>(width));
  layer.bias_gradient.resize(static_cast<std::size_t>(width));
}

class SpdnnStep final : public StepPeer {
 public:
  explicit SpdnnStep(const StepCase& step)
      : StepPeer("spdnn"), kernels_(train_kernels<float>().front()) {
    DeviceSpec spec;
    spec.threads = step.threads;
    device_ = open_device(spec);
    stream_ = device_->make_stream();
    for (int l = 0; l < kStepLayers; ++l) {
      build_columns(step.layers[l], step.width, layers_[l]);
      workspace_.resize(std::max(workspace_.size(), 2 * layers_[l].values.size()));
    }
    for (Panels<float>* panels : {&x_, &y_[0], &y_[1], &target_, &dz_[0], &dz_[1]}) {
      *panels = {nullptr, step.width, step.batch, panel_width(device_->info()), nullptr};
      buffers_.push_back(
          device_->allocate(static_cast<std::size_t>(panels->size()) * sizeof(float)));
      stream_->zero(buffers_.back().data(), buffers_.back().bytes());
      panels->data = buffers_.back().as<float>();
    }
    for (std::int64_t f = 0; f < step.width; ++f) {
      for (std::int64_t i = 0; i < step.batch; ++i) {
        x_.at(f, i) = step.x[f * step.batch + i];
        target_.at(f, i) = step.target[f * step.batch + i];
      }
    }
  }

  [[nodiscard]] double step() override {
    const double start = now_seconds();
    for (int l = 0; l < kStepLayers; ++l) {
      kernels_.sparse.forward({view(l), kRelu, input(l), y_[l]}, *stream_);
    }
    subtract_target();
    for (int l = kStepLayers - 1; l >= 0; --l) {
      Layer& layer = layers_[l];
      if (l > 0) {
        kernels_.sparse.backward({view(l), dz_[l], kRelu, input(l), dz_[l - 1], workspace_.data()},
                                 {layer.gradient.data(), layer.bias_gradient.data()}, *stream_);
      } else {
        kernels_.sparse.backward_weights(
            {layer.pattern, dz_[l], input(l), {layer.gradient.data(), layer.bias_gradient.data()}},
            *stream_);
      }
    }
    for (Layer& layer : layers_) update(layer);
    return now_seconds() - start;
  }

  [[nodiscard]] std::vector<float> values(int layer) const override {
    return layers_[layer].values;
  }

 private:
  [[nodiscard]] LinearView<float> view(int l) const {
    return {layers_[l].pattern, layers_[l].values.data(), layers_[l].bias.data()};
  }
  [[nodiscard]] Panels<const float> input(int l) const { return l == 0 ? x_ : y_[l - 1]; }

  void subtract_target() {
    const float scale = 1.0F / static_cast<float>(x_.batch);
    const Panels<float>& y = y_[kStepLayers - 1];
    float* dz = dz_[kStepLayers - 1].data;
    stream_->team().parallel_for(y.size(), std::int64_t{1} << 14U,
                                 [&](std::int64_t begin, std::int64_t end) {
                                   for (std::int64_t i = begin; i < end; ++i) {
                                     const float difference = (y.data[i] - target_.data[i]) * scale;
                                     dz[i] = y.data[i] > 0.0F ? difference : 0.0F;
                                   }
                                 });
  }

  void update(Layer& layer) {
    UpdateArgs<float> args;
    args.kind = OptimizerKind::momentum;
    args.count = layer.pattern.nnz;
    args.parameters = layer.values.data();
    args.gradient = layer.gradient.data();
    args.first = layer.momentum.data();
    args.rate = kRate;
    args.momentum = kMomentum;
    kernels_.update(args, *stream_);
  }

  const TrainKernels<float>& kernels_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  Layer layers_[kStepLayers];
  Panels<float> x_, y_[kStepLayers], target_, dz_[kStepLayers];
  std::vector<Buffer> buffers_;
  std::vector<float> workspace_;
};

}  // namespace

std::unique_ptr<StepPeer> make_spdnn_step(const StepCase& step) {
  return std::make_unique<SpdnnStep>(step);
}

}  // namespace spdnn::bench
