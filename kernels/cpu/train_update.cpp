// Optimiser steps and norms, element by element: bound by memory, 12 bytes an element for SGD, 28
// for Adam.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/train_update.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <numeric>

#include "cpu/cpu_kernels.hpp"
#include "cpu/train_lanes.hpp"

HWY_BEFORE_NAMESPACE();
namespace spdnn::HWY_NAMESPACE {
namespace {

/// One vector of parameters, or the first lane of one where a single element is left.
template <class D, class T>
HWY_INLINE void update_at(const UpdateArgs<T>& a, T scale, std::int64_t i, D d) {
  auto p = hn::LoadU(d, a.parameters + i);
  auto g = hn::Mul(hn::LoadU(d, a.gradient + i), hn::Set(d, scale));
  const auto rate = hn::Set(d, a.rate);
  if (a.kind != OptimizerKind::adamw) g = hn::MulAdd(hn::Set(d, a.decay), p, g);
  switch (a.kind) {
    case OptimizerKind::sgd: p = hn::NegMulAdd(rate, g, p); break;
    case OptimizerKind::momentum:
    case OptimizerKind::nesterov: {
      const auto momentum = hn::Set(d, a.momentum);
      const auto m = hn::MulAdd(momentum, hn::LoadU(d, a.first + i), g);
      hn::StoreU(m, d, a.first + i);
      p = hn::NegMulAdd(rate, a.kind == OptimizerKind::nesterov ? hn::MulAdd(momentum, m, g) : m,
                        p);
      break;
    }
    case OptimizerKind::adam:
    case OptimizerKind::adamw: {
      const auto m = hn::MulAdd(hn::Set(d, a.beta1), hn::LoadU(d, a.first + i),
                                hn::Mul(hn::Set(d, T{1} - a.beta1), g));
      const auto v = hn::MulAdd(hn::Set(d, a.beta2), hn::LoadU(d, a.second + i),
                                hn::Mul(hn::Set(d, T{1} - a.beta2), hn::Mul(g, g)));
      hn::StoreU(m, d, a.first + i);
      hn::StoreU(v, d, a.second + i);
      if (a.kind == OptimizerKind::adamw) {
        p = hn::NegMulAdd(hn::Set(d, a.rate * a.decay), p, p);
      }
      const auto root = hn::Sqrt(hn::Mul(v, hn::Set(d, T{1} / a.correction2)));
      const auto step = hn::Div(m, hn::Add(root, hn::Set(d, a.epsilon)));
      p = hn::NegMulAdd(hn::Set(d, a.rate / a.correction1), step, p);
      break;
    }
  }
  hn::StoreU(p, d, a.parameters + i);
}

template <class T>
void update(const UpdateArgs<T>& args, ThreadTeam& team) {
  constexpr std::int64_t kPiece = 1 << 14;
  const T scale = args.gradient_scale();
  team.parallel_for(args.count, kPiece, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
    std::int64_t i = begin;
    for (; i + kLanes<T> <= end; i += kLanes<T>) update_at(args, scale, i, Tag<T>());
    for (; i < end; ++i) update_at(args, scale, i, hn::CappedTag<T, 1>());
  });
}

/// Pieces are of one length whatever the team, so that the order of the sum is too.
template <class T>
double sum_of_squares(const T* x, std::int64_t count, ThreadTeam& team) {
  constexpr std::int64_t kPiece = 1 << 14;
  std::vector<double> sums(static_cast<std::size_t>((count + kPiece - 1) / kPiece));
  team.parallel_for(std::ssize(sums), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t piece = begin; piece < end; ++piece) {
      constexpr int kChains = 8;
      double chains[kChains] = {};
      std::int64_t i = piece * kPiece;
      const std::int64_t stop = HWY_MIN(count, i + kPiece);
      for (; i + kChains <= stop; i += kChains) {
        for (int c = 0; c < kChains; ++c) {
          const auto value = static_cast<double>(x[i + c]);
          chains[c] += value * value;
        }
      }
      for (; i < stop; ++i) chains[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      sums[piece] = std::accumulate(chains, chains + kChains, 0.0);
    }
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace

void update_f32(const UpdateArgs<float>& args, ThreadTeam& team) { update(args, team); }
void update_f64(const UpdateArgs<double>& args, ThreadTeam& team) { update(args, team); }
double squares_f32(const float* x, std::int64_t count, ThreadTeam& team) {
  return sum_of_squares(x, count, team);
}
double squares_f64(const double* x, std::int64_t count, ThreadTeam& team) {
  return sum_of_squares(x, count, team);
}

}  // namespace spdnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace spdnn {
namespace {

HWY_EXPORT(update_f32);
HWY_EXPORT(update_f64);
HWY_EXPORT(squares_f32);
HWY_EXPORT(squares_f64);

}  // namespace

template <>
void train_update_cpu<float>(const UpdateArgs<float>& args, Stream& stream) {
  HWY_DYNAMIC_DISPATCH(update_f32)(args, stream.team());
}
template <>
void train_update_cpu<double>(const UpdateArgs<double>& args, Stream& stream) {
  HWY_DYNAMIC_DISPATCH(update_f64)(args, stream.team());
}
template <>
void sum_of_squares_cpu<float>(const float* x, std::int64_t count, double* result, Stream& stream) {
  *result = HWY_DYNAMIC_DISPATCH(squares_f32)(x, count, stream.team());
}
template <>
void sum_of_squares_cpu<double>(const double* x, std::int64_t count, double* result,
                                Stream& stream) {
  *result = HWY_DYNAMIC_DISPATCH(squares_f64)(x, count, stream.team());
}

}  // namespace spdnn
#endif  // HWY_ONCE
