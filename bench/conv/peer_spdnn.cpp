// This project: one rank whose kernels use all the threads.
#include <limits>

#include "conv/conv.hpp"

namespace spdnn::bench {
namespace {

constexpr Epilogue kRelu = {0.0F, std::numeric_limits<float>::infinity()};

class SpdnnConv final : public ConvPeer {
 public:
  SpdnnConv(const ConvCase& conv, bool dense)
      : ConvPeer(dense ? "spdnn dense" : "spdnn sparse"),
        case_(conv),
        kernels_(train_kernels<float>().front()),
        dense_(dense) {
    DeviceSpec spec;
    spec.threads = conv.threads;
    device_ = open_device(spec);
    stream_ = device_->make_stream();
    width_ = panel_width(device_->info());
    fill_pattern();
    dvalues_.resize(values_.size());
    workspace_.resize(values_.size());
    dbias_.resize(conv.bias.size());
    const Window2d& w = conv.window;
    x_ = panels(w.inputs(), conv.x.data());
    dx_ = panels(w.inputs(), nullptr);
    y_ = panels(conv.filters * w.out_pixels(), nullptr);
    dz_ = panels(conv.filters * w.out_pixels(), conv.dz.data());
  }

  void step() override {
    const LinearKernels<float>& conv = dense_ ? kernels_.dense_conv : kernels_.sparse_conv;
    const LinearView<float> layer = {pattern_, values_.data(), case_.bias.data()};
    conv.forward({layer, kRelu, x_, y_, case_.window}, *stream_);
    conv.backward_weights({pattern_, dz_, x_, {dvalues_.data(), dbias_.data()}, case_.window},
                          *stream_);
    conv.backward_data({layer, dz_, kRelu, x_, dx_, workspace_.data(), case_.window}, *stream_);
  }

  [[nodiscard]] ConvOutputs outputs() const override {
    ConvOutputs out{images_of(y_), images_of(dx_), std::vector<float>(case_.weights.size()),
                    dbias_};
    for (std::int64_t row = 0; row < pattern_.rows; ++row) {
      for (std::int64_t k = row_offsets_[row]; k < row_offsets_[row + 1]; ++k) {
        out.dweights[row * pattern_.cols + col_indices_[k]] = dvalues_[k];
      }
    }
    return out;
  }

 private:
  void fill_pattern() {
    const std::int64_t cols = case_.window.channels * case_.window.taps();
    col_offsets_.resize(static_cast<std::size_t>(cols + 1));
    row_offsets_.push_back(0);
    for (std::int64_t row = 0; row < case_.filters; ++row) {
      for (std::int64_t col = 0; col < cols; ++col) {
        const float value = case_.weights[row * cols + col];
        if (value == 0.0F && !dense_) continue;
        col_indices_.push_back(static_cast<std::uint32_t>(col));
        values_.push_back(value);
        ++col_offsets_[col + 1];
      }
      row_offsets_.push_back(std::ssize(values_));
    }
    for (std::int64_t col = 0; col < cols; ++col) col_offsets_[col + 1] += col_offsets_[col];
    std::vector<std::int64_t> next = col_offsets_;
    row_indices_.resize(values_.size());
    entries_.resize(values_.size());
    for (std::int64_t row = 0; row < case_.filters; ++row) {
      for (std::int64_t k = row_offsets_[row]; k < row_offsets_[row + 1]; ++k) {
        const std::int64_t at = next[col_indices_[k]]++;
        row_indices_[at] = static_cast<std::uint32_t>(row);
        entries_[at] = static_cast<std::uint32_t>(k);
      }
    }
    pattern_ = {case_.filters, cols,   std::ssize(values_), nullptr, nullptr, nullptr,
                nullptr,       nullptr};
    if (dense_) return;
    pattern_.row_offsets = row_offsets_.data();
    pattern_.col_indices = col_indices_.data();
    pattern_.col_offsets = col_offsets_.data();
    pattern_.row_indices = row_indices_.data();
    pattern_.entries = entries_.data();
  }

  Panels<float> panels(std::int64_t features, const float* images) {
    Panels<float> p = {nullptr, features, case_.batch, width_, nullptr};
    const std::size_t bytes = static_cast<std::size_t>(p.size()) * sizeof(float);
    p.data = buffers_.emplace_back(device_->allocate(bytes)).as<float>();
    stream_->zero(p.data, bytes);
    for (std::int64_t i = 0; images != nullptr && i < case_.batch; ++i) {
      for (std::int64_t f = 0; f < features; ++f) p.at(f, i) = images[i * features + f];
    }
    return p;
  }

  static std::vector<float> images_of(const Panels<float>& p) {
    std::vector<float> images;
    for (std::int64_t i = 0; i < p.batch; ++i) {
      for (std::int64_t f = 0; f < p.features; ++f) images.push_back(p.at(f, i));
    }
    return images;
  }

  const ConvCase& case_;
  const TrainKernels<float>& kernels_;
  bool dense_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  std::int64_t width_ = 1;
  PatternView pattern_;
  std::vector<std::int64_t> row_offsets_, col_offsets_;
  std::vector<std::uint32_t> col_indices_, row_indices_, entries_;
  std::vector<float> values_, dvalues_, dbias_, workspace_;
  std::vector<Buffer> buffers_;
  Panels<float> x_, dx_, y_, dz_;
};

}  // namespace

std::unique_ptr<ConvPeer> make_spdnn_conv(const ConvCase& conv, bool dense) {
  return std::make_unique<SpdnnConv>(conv, dense);
}

}  // namespace spdnn::bench
