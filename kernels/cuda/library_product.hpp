// What the kernels that leave the product W · x to a library have in common: where it goes, and the
// epilogue that follows. The host knows only an upper bound of the batch, so all panels within it
// are multiplied.
#pragma once

#include "cuda/launch.hpp"

namespace spdnn::cuda {

/// `buffer` with room for `bytes`; what it held is lost when it grows. Freeing waits for the
/// device.
void* with_room(Buffer& buffer, std::size_t bytes, Device& device);

/// Where the product goes: to y, or where fewer images may live than the bound says, to `room`, so
/// that y's panels past the living images stay untouched.
[[nodiscard]] Panels<float> product_panels(const SpmmArgs<float>& args, Buffer& room,
                                           Device& device);

/// y ← h(product + b), with the flags of living images; see epilogue.cuh.
void run_epilogue(const SpmmKernelArgs& args, const float* product, cudaStream_t stream);

}  // namespace spdnn::cuda
