// The one step of a change of connections that is left to a library: CUB on a GPU, the standard
// library on the SIMT layer.
#pragma once

#include "cuda/launch.hpp"

namespace spdnn::cuda {

/// Keys below 2^bits and a number that goes with each: `count` of them, below 2³².
struct SortArgs {
  const std::uint32_t* keys = nullptr;
  const std::uint32_t* numbers = nullptr;
  std::uint32_t* keys_out = nullptr;     ///< other memory than `keys`
  std::uint32_t* numbers_out = nullptr;  ///< other memory than `numbers`
  std::int64_t count = 0;
  int bits = 32;
};

/// Bytes `sort_pairs` needs as scratch for so many on the current device.
[[nodiscard]] std::size_t sort_bytes(std::int64_t count);

/// In ascending order of the keys, equal ones in the order in which they stand.
void sort_pairs(const SortArgs& args, void* scratch, NativeStream stream);

}  // namespace spdnn::cuda
