// From the templates forward, backward_data and backward_weights of one kind of layer, compiled for
// each target of Highway, to its table for float and double.
#pragma once

#include <hwy/highway.h>

#include "spdnn/train_op.hpp"

/// In the namespace of a target: the functions that are looked up at run time.
#define SPDNN_LINEAR_TARGETS(op)                                                                \
  void op##_forward_f32(const ForwardArgs<float>& a, ThreadTeam& t) { forward(a, t); }          \
  void op##_forward_f64(const ForwardArgs<double>& a, ThreadTeam& t) { forward(a, t); }         \
  void op##_data_f32(const BackwardDataArgs<float>& a, ThreadTeam& t) { backward_data(a, t); }  \
  void op##_data_f64(const BackwardDataArgs<double>& a, ThreadTeam& t) { backward_data(a, t); } \
  void op##_weights_f32(const BackwardWeightsArgs<float>& a, ThreadTeam& t) {                   \
    backward_weights(a, t);                                                                     \
  }                                                                                             \
  void op##_weights_f64(const BackwardWeightsArgs<double>& a, ThreadTeam& t) {                  \
    backward_weights(a, t);                                                                     \
  }

/// The table `table<T>()`; what follows `suffix`, if anything, is its `backward`.
#define SPDNN_LINEAR_TABLE(table, op, T, suffix, ...)                       \
  template <>                                                               \
  const LinearKernels<T>& table<T>() {                                      \
    static constexpr LinearKernels<T> kernels = {                           \
        [](const ForwardArgs<T>& args, Stream& stream) {                    \
          HWY_DYNAMIC_DISPATCH(op##_forward_##suffix)(args, stream.team()); \
        },                                                                  \
        [](const BackwardDataArgs<T>& args, Stream& stream) {               \
          HWY_DYNAMIC_DISPATCH(op##_data_##suffix)(args, stream.team());    \
        },                                                                  \
        [](const BackwardWeightsArgs<T>& args, Stream& stream) {            \
          HWY_DYNAMIC_DISPATCH(op##_weights_##suffix)(args, stream.team()); \
        } __VA_OPT__(, ) __VA_ARGS__};                                      \
    return kernels;                                                         \
  }

/// Once, in namespace spdnn, before tables.
#define SPDNN_LINEAR_EXPORT(op) \
  namespace {                   \
  HWY_EXPORT(op##_forward_f32); \
  HWY_EXPORT(op##_forward_f64); \
  HWY_EXPORT(op##_data_f32);    \
  HWY_EXPORT(op##_data_f64);    \
  HWY_EXPORT(op##_weights_f32); \
  HWY_EXPORT(op##_weights_f64); \
  }

/// Once, in namespace spdnn: defines `table<float>()` and `table<double>()`.
#define SPDNN_LINEAR_DISPATCH(table, op)    \
  SPDNN_LINEAR_EXPORT(op)                   \
  SPDNN_LINEAR_TABLE(table, op, float, f32) \
  SPDNN_LINEAR_TABLE(table, op, double, f64)
