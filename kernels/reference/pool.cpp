// Pooling by plain loops, one image after another.
#include <algorithm>

#include "reference/reference.hpp"

namespace spdnn {
namespace {

/// The part of window (oy, ox) that lies within the plane.
struct Part {
  Range y, x;
  Part(const Window2d& w, std::int64_t oy, std::int64_t ox)
      : y(within(oy * w.stride - w.pad_top, w.kernel_height, w.in_height)),
        x(within(ox * w.stride - w.pad_left, w.kernel_width, w.in_width)) {}
  [[nodiscard]] std::int64_t size() const { return y.size() * x.size(); }

 private:
  static Range within(std::int64_t begin, std::int64_t length, std::int64_t end) {
    return {std::max<std::int64_t>(begin, 0), std::min(begin + length, end)};
  }
};

/// Calls `visit(part, first feature of the input plane, feature of the output)` for every output.
template <class Visit>
void for_each_output(const Window2d& w, const Visit& visit) {
  std::int64_t out = 0;
  for (std::int64_t channel = 0; channel < w.channels; ++channel) {
    for (std::int64_t oy = 0; oy < w.out_height; ++oy) {
      for (std::int64_t ox = 0; ox < w.out_width; ++ox) {
        visit(Part(w, oy, ox), channel * w.in_pixels(), out++);
      }
    }
  }
}

/// Calls `visit(feature)` for every input of a window.
template <class Visit>
void for_each_input(const Window2d& w, const Part& part, std::int64_t first, const Visit& visit) {
  for (std::int64_t y = part.y.begin; y < part.y.end; ++y) {
    for (std::int64_t x = part.x.begin; x < part.x.end; ++x) visit(first + y * w.in_width + x);
  }
}

template <class T>
std::int64_t largest(const Window2d& w, const Part& part, std::int64_t first,
                     const Panels<const T>& x, std::int64_t image) {
  std::int64_t best = first + part.y.begin * w.in_width + part.x.begin;
  for_each_input(w, part, first, [&](std::int64_t f) {
    if (x.at(f, image) > x.at(best, image)) best = f;
  });
  return best;
}

}  // namespace

template <class T>
void pool_forward_reference(const PoolForwardArgs<T>& args, Stream& /*stream*/) {
  const Window2d& w = args.window;
  for (std::int64_t image = 0; image < args.x.count() * args.x.width; ++image) {
    for_each_output(w, [&](const Part& part, std::int64_t first, std::int64_t out) {
      if (args.kind == LayerKind::max_pool) {
        args.y.at(out, image) = args.x.at(largest(w, part, first, args.x, image), image);
        return;
      }
      double sum = 0.0;
      for_each_input(w, part, first, [&](std::int64_t f) { sum += args.x.at(f, image); });
      args.y.at(out, image) = static_cast<T>(sum / static_cast<double>(part.size()));
    });
  }
}

template <class T>
void pool_backward_reference(const PoolBackwardArgs<T>& args, Stream& /*stream*/) {
  const Window2d& w = args.window;
  std::vector<double> sums(static_cast<std::size_t>(args.x.features));
  for (std::int64_t image = 0; image < args.x.count() * args.x.width; ++image) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for_each_output(w, [&](const Part& part, std::int64_t first, std::int64_t out) {
      const double dy = args.dy.at(out, image);
      if (args.kind == LayerKind::max_pool) {
        sums[largest(w, part, first, args.x, image)] += dy;
        return;
      }
      const double each = dy / static_cast<double>(part.size());
      for_each_input(w, part, first, [&](std::int64_t f) { sums[f] += each; });
    });
    for (std::int64_t f = 0; f < args.x.features; ++f) {
      const T x = args.x.at(f, image);
      const bool inside = x > T{args.activation.lower} && x < T{args.activation.upper};
      args.dx.at(f, image) = inside ? static_cast<T>(sums[f]) : T{0};
    }
  }
}

template void pool_forward_reference<float>(const PoolForwardArgs<float>&, Stream&);
template void pool_forward_reference<double>(const PoolForwardArgs<double>&, Stream&);
template void pool_backward_reference<float>(const PoolBackwardArgs<float>&, Stream&);
template void pool_backward_reference<double>(const PoolBackwardArgs<double>&, Stream&);

}  // namespace spdnn
