// CUB's radix sort of pairs.
#include <cub/device/device_radix_sort.cuh>

#include "cuda/sort.hpp"

namespace spdnn::cuda {
namespace {

/// With `scratch` null it only sets `bytes` to what CUB needs there.
void sort(void* scratch, std::size_t& bytes, const SortArgs& args, NativeStream stream) {
  check(cub::DeviceRadixSort::SortPairs(scratch, bytes, args.keys, args.keys_out, args.numbers,
                                        args.numbers_out, static_cast<std::uint32_t>(args.count), 0,
                                        args.bits, stream),
        "rewire (sort)");
}

}  // namespace

std::size_t sort_bytes(std::int64_t count) {
  std::size_t bytes = 0;
  SortArgs args;
  args.count = count;
  sort(nullptr, bytes, args, nullptr);
  return bytes;
}

void sort_pairs(const SortArgs& args, void* scratch, NativeStream stream) {
  std::size_t bytes = sort_bytes(args.count);
  sort(scratch, bytes, args, stream);
}

}  // namespace spdnn::cuda
