// CUB's exclusive sum over the flags of living images.
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>

#include <cub/device/device_scan.cuh>

#include "cuda/scan.hpp"

namespace spdnn::cuda {
namespace {

/// With `scratch` null it only sets `bytes` to what CUB needs there.
void scan(void* scratch, std::size_t& bytes, const LivingFlag& living, std::int32_t* ranks,
          NativeStream stream) {
  constexpr std::int64_t kMostImages = std::int64_t{1} << 30;
  const std::int64_t batch = living.x.batch;
  if (batch > kMostImages) {
    throw DeviceError("compact: " + std::to_string(batch) + " images at once; it takes at most " +
                      std::to_string(kMostImages) + ": choose a smaller `batch`");
  }
  const auto flags =
      thrust::make_transform_iterator(thrust::counting_iterator<std::int32_t>(0), living);
  check(cub::DeviceScan::ExclusiveSum(scratch, bytes, flags, ranks, static_cast<int>(batch + 1),
                                      stream),
        "compact (scan)");
}

}  // namespace

std::size_t scan_bytes(std::int64_t batch) {
  std::size_t bytes = 0;
  scan(nullptr, bytes, {nullptr, {nullptr, 0, batch, 1, nullptr}}, nullptr, nullptr);
  return bytes;
}

void scan_living(const LivingFlag& living, std::int32_t* ranks, void* scratch,
                 NativeStream stream) {
  std::size_t bytes = scan_bytes(living.x.batch);
  scan(scratch, bytes, living, ranks, stream);
}

}  // namespace spdnn::cuda
