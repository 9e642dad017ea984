// Losses and their gradients on the CPU, panel by panel, each by one thread. Plain loops over the
// images of a panel, which the fast kernels share: an exponential for each output is most of it.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "loss_parts.hpp"
#include "reference/reference.hpp"

namespace spdnn {
namespace {

template <class T>
std::uint32_t number_of(const LossArgs<T>& args, std::int64_t feature) {
  return args.numbers == nullptr ? static_cast<std::uint32_t>(feature) : args.numbers[feature];
}

/// The gradient by the sums of one output from that by the output.
template <class T>
T through(const Epilogue& activation, T y, T gradient) {
  return y > T{activation.lower} && y < T{activation.upper} ? gradient : T{0};
}

/// Images of a panel, and where it is in what belongs to images.
template <class T>
struct LossPanel {
  LossPanel(const LossArgs<T>& loss, std::int64_t panel)
      : args(loss),
        width(loss.y.width),
        first(panel * width),
        images(std::min(width, loss.y.batch - first)),
        y(loss.y.panel(panel)),
        dz(loss.dz.panel(panel)),
        labels(loss.labels + first) {}

  /// Calls `use(y, dz, image of the panel, 1 where the output is the label's, else 0)`.
  template <class Use>
  void for_each(const Use& use) const {
    for (std::int64_t c = 0; c < args.y.features; ++c) {
      const auto number = static_cast<std::int32_t>(number_of(args, c));
      const T* const from = y + c * width;
      T* const to = dz + c * width;
      for (std::int64_t i = 0; i < images; ++i) {
        use(from[i], to[i], i, labels[i] == number ? T{1} : T{0});
      }
    }
  }

  const LossArgs<T>& args;
  std::int64_t width, first, images;
  const T* y;
  T* dz;
  const std::int32_t* labels;
};

/// The largest output of each image and its number.
template <class T>
void find_largest(const LossPanel<T>& panel, T* top, T* which) {
  const LossArgs<T>& args = panel.args;
  const bool any = args.y.features > 0;
  std::fill_n(top, panel.images, -std::numeric_limits<T>::infinity());
  std::fill_n(which, panel.images, static_cast<T>(any ? number_of(args, 0) : args.outputs));
  if (any) std::copy_n(panel.y, panel.images, top);  // one that is no number stays
  for (std::int64_t c = 1; c < args.y.features; ++c) {
    const T* const y = panel.y + c * panel.width;
    const auto number = static_cast<T>(number_of(args, c));
    for (std::int64_t i = 0; i < panel.images; ++i) {
      const bool is_first = y[i] > top[i] || (y[i] == top[i] && number < which[i]);
      top[i] = is_first ? y[i] : top[i];
      which[i] = is_first ? number : which[i];
    }
  }
}

template <class T>
void part_of_panel(const LossArgs<T>& args, std::int64_t number) {
  const LossPanel<T> panel(args, number);
  T* const words = args.part.panel(number);
  T* const top = words + LossPart::top * panel.width;
  T* const sum = words + LossPart::sum * panel.width;
  T* const at_label = words + LossPart::at_label * panel.width;
  find_largest(panel, top, words + LossPart::which * panel.width);
  std::fill_n(sum, panel.images, T{0});
  std::fill_n(at_label, panel.images, -std::numeric_limits<T>::infinity());
  const bool softmax = args.loss == Loss::cross_entropy;
  panel.for_each([&](T y, T& dz, std::int64_t i, T is_label) {
    dz = softmax ? std::exp(y - top[i]) : y - is_label;
    sum[i] += softmax ? dz : dz * dz;
    if (is_label == T{1}) at_label[i] = y;
  });
}

template <class T>
void gradient_of_panel(const LossArgs<T>& args, std::int64_t number) {
  const LossPanel<T> panel(args, number);
  const bool softmax = args.loss == Loss::cross_entropy;
  const T* const top = args.part.panel(number) + LossPart::top * panel.width;
  std::vector<T> lift, divisor;
  for (std::int64_t i = 0; i < panel.images; ++i) {
    const WholeLoss<T> whole = put_together(args.parts, panel.first + i, args.loss);
    lift.push_back(softmax ? std::exp(top[i] - whole.top) : T{1});
    divisor.push_back(softmax ? whole.sum : static_cast<T>(args.outputs));
  }
  panel.for_each([&](T y, T& dz, std::int64_t i, T is_label) {
    const T slope = dz * lift[i] / divisor[i] - (softmax ? is_label : T{0});
    dz = through(args.activation, y, args.scale * slope);
  });
  for (std::int64_t c = 0; c < args.dz.features; ++c) {
    std::fill(panel.dz + c * panel.width + panel.images, panel.dz + (c + 1) * panel.width, T{0});
  }
}

}  // namespace

template <class T>
void loss_part_cpu(const LossArgs<T>& args, Stream& stream) {
  stream.team().parallel_for(args.y.count(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end; ++panel) part_of_panel(args, panel);
  });
}

template <class T>
void loss_cpu(const LossArgs<T>& args, Stream& stream) {
  double loss = args.adds_up ? *args.loss_sum : 0.0;
  for (std::int64_t image = 0; image < args.y.batch; ++image) {
    const WholeLoss<T> whole = put_together(args.parts, image, args.loss);
    args.predictions[image] = static_cast<std::int32_t>(whole.which);
    loss += whole.value(args.loss, args.outputs);
  }
  *args.loss_sum = loss;
  stream.team().parallel_for(args.y.count(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t panel = begin; panel < end; ++panel) gradient_of_panel(args, panel);
  });
}

template void loss_part_cpu<float>(const LossArgs<float>& args, Stream& stream);
template void loss_part_cpu<double>(const LossArgs<double>& args, Stream& stream);
template void loss_cpu<float>(const LossArgs<float>& args, Stream& stream);
template void loss_cpu<double>(const LossArgs<double>& args, Stream& stream);

}  // namespace spdnn
