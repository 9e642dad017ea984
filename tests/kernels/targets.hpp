// Running CPU kernels with each set of vector instructions that they were compiled for.
#pragma once

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include "support/devices.hpp"

namespace spdnn::test {

/// Calls `body` once for each instruction set that kernels are compiled for and this machine has,
/// with dispatch held to it; ends at the first fatal failure.
template <class Body>
void for_each_target(const Body& body) {
  struct Restore {
    ~Restore() { hwy::SetSupportedTargetsForTest(0); }
  };
  const Restore restore;
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    SCOPED_TRACE(hwy::TargetName(target));
    body();
    if (testing::Test::HasFatalFailure()) return;
  }
}

/// Calls `body(device, stream)` for every device tested, CPUs once for each instruction set.
template <class Body>
void for_each_device(const Body& body) {
  for (const DeviceSpec& spec : tested_devices()) {
    const std::unique_ptr<Device> device = open_device(spec);
    const std::unique_ptr<Stream> stream = device->make_stream();
    SCOPED_TRACE(testing::Message() << device->info().name << " × " << spec.threads);
    if (spec.kind == DeviceKind::cpu) {
      for_each_target([&] { body(*device, *stream); });
    } else {
      body(*device, *stream);
    }
    if (testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace spdnn::test
