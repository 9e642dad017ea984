// Losses and their gradients, one image after another. The last layer has a few classes, so that
// plain loops take a small part of a step; the fast kernels of the CPU share them.
#include <algorithm>
#include <cmath>

#include "reference/reference.hpp"

namespace spdnn {
namespace {

/// The gradient by the sums of one output from that by the output.
template <class T>
T through(const Epilogue& activation, T y, T gradient) {
  return y > T{activation.lower} && y < T{activation.upper} ? gradient : T{0};
}

/// −log softmax, computed of differences to the largest output so that nothing overflows.
template <class T>
double cross_entropy(const LossArgs<T>& args, std::int64_t image, std::int64_t largest) {
  const T top = args.y.at(largest, image);
  T sum = T{0};
  for (std::int64_t c = 0; c < args.y.features; ++c) sum += std::exp(args.y.at(c, image) - top);
  const std::int64_t label = args.labels[image];
  if (args.dz.data != nullptr) {
    for (std::int64_t c = 0; c < args.y.features; ++c) {
      const T y = args.y.at(c, image);
      const T slope = std::exp(y - top) / sum - (c == label ? T{1} : T{0});
      args.dz.at(c, image) = through(args.activation, y, args.scale * slope);
    }
  }
  return static_cast<double>(std::log(sum)) - static_cast<double>(args.y.at(label, image) - top);
}

template <class T>
double mean_squared_error(const LossArgs<T>& args, std::int64_t image) {
  const auto classes = static_cast<T>(args.y.features);
  double sum = 0.0;
  for (std::int64_t c = 0; c < args.y.features; ++c) {
    const T y = args.y.at(c, image);
    const T error = y - (c == args.labels[image] ? T{1} : T{0});
    sum += static_cast<double>(error) * error;
    if (args.dz.data != nullptr) {
      args.dz.at(c, image) = through(args.activation, y, args.scale * error / classes);
    }
  }
  return sum / (2.0 * static_cast<double>(args.y.features));
}

}  // namespace

template <class T>
void loss_cpu(const LossArgs<T>& args, Stream& /*stream*/) {
  double loss = 0.0;
  for (std::int64_t image = 0; image < args.y.batch; ++image) {
    std::int64_t largest = 0;
    for (std::int64_t c = 1; c < args.y.features; ++c) {
      if (args.y.at(c, image) > args.y.at(largest, image)) largest = c;
    }
    if (args.predictions != nullptr) args.predictions[image] = static_cast<std::int32_t>(largest);
    loss += args.loss == Loss::cross_entropy ? cross_entropy(args, image, largest)
                                             : mean_squared_error(args, image);
  }
  *args.loss_sum = loss;
  for (std::int64_t lane = args.y.batch; lane < args.dz.count() * args.dz.width; ++lane) {
    for (std::int64_t c = 0; c < args.dz.features; ++c) args.dz.at(c, lane) = T{0};
  }
}

template void loss_cpu<float>(const LossArgs<float>& args, Stream& stream);
template void loss_cpu<double>(const LossArgs<double>& args, Stream& stream);

}  // namespace spdnn
