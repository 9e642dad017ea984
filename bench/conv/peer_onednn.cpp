// oneDNN's dense convolutions: it picks algorithm and layouts, and data are there before the clock
// starts. ReLU is fused into its forward; its way back leaves out the mask, which costs it nothing.
#include <omp.h>

#include <dnnl.hpp>
#include <unordered_map>

#include "conv/conv.hpp"

namespace spdnn::bench {
namespace {

using Tag = dnnl::memory::format_tag;
using Dims = dnnl::memory::dims;

dnnl::memory::desc desc(const Dims& dims, Tag tag) {
  return {dims, dnnl::memory::data_type::f32, tag};
}

class OnednnConv final : public ConvPeer {
 public:
  explicit OnednnConv(const ConvCase& conv)
      : ConvPeer("onednn"), case_(conv), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    omp_set_num_threads(conv.threads);
    const Window2d& w = conv.window;
    x_dims_ = {conv.batch, w.channels, w.in_height, w.in_width};
    y_dims_ = {conv.batch, conv.filters, w.out_height, w.out_width};
    w_dims_ = {conv.filters, w.channels, w.kernel_height, w.kernel_width};
    const auto x = desc(x_dims_, Tag::any);
    const auto y = desc(y_dims_, Tag::any);
    const auto weights = desc(w_dims_, Tag::any);
    const auto bias = desc({conv.filters}, Tag::a);
    const auto algorithm = dnnl::algorithm::convolution_direct;
    const Dims strides = {w.stride, w.stride};
    const Dims before = {w.pad_top, w.pad_left};
    const Dims after = {(w.out_height - 1) * w.stride + w.kernel_height - w.in_height - w.pad_top,
                        (w.out_width - 1) * w.stride + w.kernel_width - w.in_width - w.pad_left};
    dnnl::post_ops relu;
    relu.append_eltwise(1.0F, dnnl::algorithm::eltwise_relu, 0.0F, 0.0F);
    dnnl::primitive_attr attributes;
    attributes.set_post_ops(relu);
    const dnnl::convolution_forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, algorithm, x, weights, bias, y, strides, before, after},
        attributes, engine_);
    const dnnl::convolution_backward_data::primitive_desc data(
        {algorithm, x, weights, y, strides, before, after}, engine_, forward);
    const dnnl::convolution_backward_weights::primitive_desc gradient(
        {algorithm, x, weights, bias, y, strides, before, after}, engine_, forward);
    bias_ = from(conv.bias, {conv.filters}, Tag::a, bias);
    dbias_ = dnnl::memory(bias, engine_);
    y_ = dnnl::memory(forward.dst_desc(), engine_);
    dx_ = dnnl::memory(data.diff_src_desc(), engine_);
    dweights_ = dnnl::memory(gradient.diff_weights_desc(), engine_);
    forward_ = {dnnl::convolution_forward(forward),
                {{DNNL_ARG_SRC, from(conv.x, x_dims_, Tag::nchw, forward.src_desc())},
                 {DNNL_ARG_WEIGHTS, from(conv.weights, w_dims_, Tag::oihw, forward.weights_desc())},
                 {DNNL_ARG_BIAS, bias_},
                 {DNNL_ARG_DST, y_}}};
    data_ = {dnnl::convolution_backward_data(data),
             {{DNNL_ARG_DIFF_DST, from(conv.dz, y_dims_, Tag::nchw, data.diff_dst_desc())},
              {DNNL_ARG_WEIGHTS, from(conv.weights, w_dims_, Tag::oihw, data.weights_desc())},
              {DNNL_ARG_DIFF_SRC, dx_}}};
    gradient_ = {dnnl::convolution_backward_weights(gradient),
                 {{DNNL_ARG_SRC, from(conv.x, x_dims_, Tag::nchw, gradient.src_desc())},
                  {DNNL_ARG_DIFF_DST, from(conv.dz, y_dims_, Tag::nchw, gradient.diff_dst_desc())},
                  {DNNL_ARG_DIFF_WEIGHTS, dweights_},
                  {DNNL_ARG_DIFF_BIAS, dbias_}}};
  }

  void step() override {
    for (auto* part : {&forward_, &gradient_, &data_}) part->primitive.execute(stream_, part->args);
    stream_.wait();
  }

  [[nodiscard]] ConvOutputs outputs() const override {
    ConvOutputs out{to(y_, y_dims_, Tag::nchw), to(dx_, x_dims_, Tag::nchw),
                    to(dweights_, w_dims_, Tag::oihw), to(dbias_, {case_.filters}, Tag::a)};
    for (std::size_t i = 0; i < out.dx.size(); ++i) {
      if (case_.x[i] <= 0.0F) out.dx[i] = 0.0F;
    }
    return out;
  }

 private:
  struct Part {
    dnnl::primitive primitive;
    std::unordered_map<int, dnnl::memory> args;
  };

  /// A copy of plain data in the layout a primitive wants.
  dnnl::memory from(const std::vector<float>& data, const Dims& dims, Tag tag,
                    const dnnl::memory::desc& wanted) {
    dnnl::memory plain(desc(dims, tag), engine_, const_cast<float*>(data.data()));  // NOLINT
    dnnl::memory copy(wanted, engine_);
    dnnl::reorder(plain, copy).execute(stream_, plain, copy);
    stream_.wait();
    return copy;
  }
  [[nodiscard]] std::vector<float> to(dnnl::memory data, const Dims& dims, Tag tag) const {
    dnnl::stream stream(engine_);
    dnnl::memory plain(desc(dims, tag), engine_);
    dnnl::reorder(data, plain).execute(stream, data, plain);
    stream.wait();
    std::int64_t count = 1;
    for (const std::int64_t dim : dims) count *= dim;
    const auto* first = static_cast<const float*>(plain.get_data_handle());
    return {first, first + count};
  }

  const ConvCase& case_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  Dims x_dims_, y_dims_, w_dims_;
  dnnl::memory bias_, dbias_, y_, dx_, dweights_;
  Part forward_, data_, gradient_;
};

}  // namespace

std::unique_ptr<ConvPeer> make_onednn_conv(const ConvCase& conv) {
  return std::make_unique<OnednnConv>(conv);
}

}  // namespace spdnn::bench
