// What tests of training's kernels on GPUs have in common.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "support/devices.hpp"
#include "train/problems.hpp"

namespace spdnn::test {

inline constexpr std::int64_t kGpuWidth = 64;

template <class T>
const TrainKernels<T>* cuda_kernels() {
  for (const TrainKernels<T>& kernels : train_kernels<T>()) {
    if (kernels.device == DeviceKind::cuda) return &kernels;
  }
  return nullptr;
}

/// Calls `body(device, stream)` for every GPU; skips where there is none.
template <class Body>
void on_each_gpu(const Body& body) {
  bool found = false;
  for (const DeviceSpec& spec : tested_devices()) {
    if (spec.kind != DeviceKind::cuda) continue;
    found = true;
    const std::unique_ptr<Device> device = open_device(spec);
    const auto stream = device->make_stream();
    body(*device, *stream);
  }
  if (!found) GTEST_SKIP() << "there is no CUDA device";
}

/// The same panels of other numbers.
template <class T, class U>
Panels<T> with(const Panels<U>& shape, T* data) {
  return {data, shape.features, shape.batch, shape.width, nullptr};
}

using StoredTypes = testing::Types<float, double, Half, Bfloat16>;

}  // namespace spdnn::test
