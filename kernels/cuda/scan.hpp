// The one step of compaction that is left to a library: CUB on a GPU, a loop on the SIMT layer.
#pragma once

#include "cuda/launch.hpp"
#include "cuda/layout.cuh"

namespace spdnn::cuda {

/// Bytes `scan_living` needs as scratch for batches of so many images on the current device.
[[nodiscard]] std::size_t scan_bytes(std::int64_t batch);

/// ranks[s] ← living images before slot s, for s from 0 to the batch. Throws `DeviceError` for more
/// than 2³⁰ images.
void scan_living(const LivingFlag& living, std::int32_t* ranks, void* scratch, NativeStream stream);

}  // namespace spdnn::cuda
