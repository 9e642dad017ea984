// Pooling on panels, vectorised over the images. Work: planes of one channel and panel.
//
// Each output reads its window's inputs, side by side in memory; the way back finds the largest
// again instead of storing where it was. Bytes: every input once or twice from the caches; the
// floor is memory's rate.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/pool.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "cpu/cpu_kernels.hpp"
#include "cpu/train_lanes.hpp"

HWY_BEFORE_NAMESPACE();
namespace spdnn::HWY_NAMESPACE {
namespace {

/// The part of a window that lies within the plane.
struct Part {
  std::int64_t y_begin, y_end, x_begin, x_end;
  Part(const Window2d& w, std::int64_t oy, std::int64_t ox) {
    const std::int64_t y = oy * w.stride - w.pad_top;
    const std::int64_t x = ox * w.stride - w.pad_left;
    y_begin = HWY_MAX(y, std::int64_t{0});
    x_begin = HWY_MAX(x, std::int64_t{0});
    y_end = HWY_MIN(y + w.kernel_height, w.in_height);
    x_end = HWY_MIN(x + w.kernel_width, w.in_width);
  }
  [[nodiscard]] std::int64_t size() const { return (y_end - y_begin) * (x_end - x_begin); }
  /// Calls `visit(input)` for each of the plane's inputs in it.
  template <class Visit>
  HWY_INLINE void for_each(std::int64_t in_width, const Visit& visit) const {
    for (std::int64_t y = y_begin; y < y_end; ++y) {
      for (std::int64_t x = x_begin; x < x_end; ++x) visit(y * in_width + x);
    }
  }
};

template <class T>
HWY_INLINE Vec<T> largest(const Part& part, std::int64_t in_width, const T* x, std::int64_t width) {
  const Tag<T> d;
  auto most = hn::LoadU(d, x + (part.y_begin * in_width + part.x_begin) * width);
  part.for_each(in_width, [&](std::int64_t at)
                              HWY_ATTR { most = hn::Max(most, hn::LoadU(d, x + at * width)); });
  return most;
}

/// Calls `plane(panel, channel)` for all of them on a team.
template <class Plane>
void for_each_plane(std::int64_t panels, std::int64_t channels, ThreadTeam& team,
                    const Plane& plane) {
  team.parallel_for(panels * channels, 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) plane(i / channels, i % channels);
  });
}

/// Calls `visit(part, output, lane)` for each output of a plane and vector of images.
template <class T, class Visit>
HWY_INLINE void for_each_output(const Window2d& w, std::int64_t width, const Visit& visit) {
  for (std::int64_t oy = 0; oy < w.out_height; ++oy) {
    for (std::int64_t ox = 0; ox < w.out_width; ++ox) {
      const Part part(w, oy, ox);
      for (std::int64_t lane = 0; lane < width; lane += kLanes<T>) {
        visit(part, oy * w.out_width + ox, lane);
      }
    }
  }
}

template <class T>
void forward(const PoolForwardArgs<T>& args, ThreadTeam& team) {
  const Window2d& w = args.window;
  const std::int64_t width = args.x.width;
  for_each_plane(args.x.count(), w.channels, team, [&](std::int64_t p, std::int64_t c) HWY_ATTR {
    const Tag<T> d;
    const T* x = args.x.panel(p) + c * w.in_pixels() * width;
    T* y = args.y.panel(p) + c * w.out_pixels() * width;
    for_each_output<T>(
        w, width, [&](const Part& part, std::int64_t out, std::int64_t lane) HWY_ATTR {
          if (args.kind == LayerKind::max_pool) {
            hn::StoreU(largest(part, w.in_width, x + lane, width), d, y + out * width + lane);
            return;
          }
          auto sum = hn::Zero(d);
          part.for_each(w.in_width, [&](std::int64_t at) HWY_ATTR {
            sum = hn::Add(sum, hn::LoadU(d, x + at * width + lane));
          });
          hn::StoreU(hn::Div(sum, hn::Set(d, static_cast<T>(part.size()))), d,
                     y + out * width + lane);
        });
  });
}

/// Adds what one window hands back, for the images of a vector.
template <class T>
HWY_INLINE void hand_back(LayerKind kind, const Part& part, std::int64_t in_width, Vec<T> dy,
                          const T* x, T* dx, std::int64_t width) {
  const Tag<T> d;
  if (kind == LayerKind::average_pool) {
    const auto each = hn::Div(dy, hn::Set(d, static_cast<T>(part.size())));
    part.for_each(in_width, [&](std::int64_t at) HWY_ATTR {
      hn::StoreU(hn::Add(hn::LoadU(d, dx + at * width), each), d, dx + at * width);
    });
    return;
  }
  const auto most = largest(part, in_width, x, width);
  auto left = dy;  // 0 in the lanes whose largest input has been found
  part.for_each(in_width, [&](std::int64_t at) HWY_ATTR {
    const auto here = hn::Eq(hn::LoadU(d, x + at * width), most);
    const auto given = hn::IfThenElseZero(here, left);
    hn::StoreU(hn::Add(hn::LoadU(d, dx + at * width), given), d, dx + at * width);
    left = hn::IfThenZeroElse(here, left);
  });
}

template <class T>
void backward(const PoolBackwardArgs<T>& args, ThreadTeam& team) {
  const Window2d& w = args.window;
  const std::int64_t width = args.x.width;
  for_each_plane(args.x.count(), w.channels, team, [&](std::int64_t p, std::int64_t c) HWY_ATTR {
    const Tag<T> d;
    const T* x = args.x.panel(p) + c * w.in_pixels() * width;
    T* dx = args.dx.panel(p) + c * w.in_pixels() * width;
    const T* dy = args.dy.panel(p) + c * w.out_pixels() * width;
    std::fill_n(dx, w.in_pixels() * width, T{0});
    for_each_output<T>(
        w, width, [&](const Part& part, std::int64_t out, std::int64_t lane) HWY_ATTR {
          hand_back(args.kind, part, w.in_width, hn::LoadU(d, dy + out * width + lane), x + lane,
                    dx + lane, width);
        });
    const auto lower = hn::Set(d, T{args.activation.lower});
    const auto upper = hn::Set(d, T{args.activation.upper});
    for (std::int64_t at = 0; at < w.in_pixels() * width; at += kLanes<T>) {
      const auto made = hn::LoadU(d, x + at);
      const auto inside = hn::And(hn::Gt(made, lower), hn::Lt(made, upper));
      hn::StoreU(hn::IfThenElseZero(inside, hn::LoadU(d, dx + at)), d, dx + at);
    }
  });
}

}  // namespace

void pool_forward_f32(const PoolForwardArgs<float>& a, ThreadTeam& t) { forward(a, t); }
void pool_forward_f64(const PoolForwardArgs<double>& a, ThreadTeam& t) { forward(a, t); }
void pool_backward_f32(const PoolBackwardArgs<float>& a, ThreadTeam& t) { backward(a, t); }
void pool_backward_f64(const PoolBackwardArgs<double>& a, ThreadTeam& t) { backward(a, t); }

}  // namespace spdnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace spdnn {
namespace {

HWY_EXPORT(pool_forward_f32);
HWY_EXPORT(pool_forward_f64);
HWY_EXPORT(pool_backward_f32);
HWY_EXPORT(pool_backward_f64);

}  // namespace

template <>
const PoolKernels<float>& pool_cpu<float>() {
  static constexpr PoolKernels<float> kernels = {
      [](const PoolForwardArgs<float>& args, Stream& stream) {
        HWY_DYNAMIC_DISPATCH(pool_forward_f32)(args, stream.team());
      },
      [](const PoolBackwardArgs<float>& args, Stream& stream) {
        HWY_DYNAMIC_DISPATCH(pool_backward_f32)(args, stream.team());
      }};
  return kernels;
}

template <>
const PoolKernels<double>& pool_cpu<double>() {
  static constexpr PoolKernels<double> kernels = {
      [](const PoolForwardArgs<double>& args, Stream& stream) {
        HWY_DYNAMIC_DISPATCH(pool_forward_f64)(args, stream.team());
      },
      [](const PoolBackwardArgs<double>& args, Stream& stream) {
        HWY_DYNAMIC_DISPATCH(pool_backward_f64)(args, stream.team());
      }};
  return kernels;
}

}  // namespace spdnn
#endif  // HWY_ONCE
