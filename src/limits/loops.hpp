// The timed loops behind limits.hpp, dispatched to the processor's widest vectors.
#pragma once

#include <cstdint>

namespace spdnn::limits {

/// Counts are in floats. `places` are counted in granules; their number is a multiple of 16.
template <class Index>
struct GatherWork {
  const float* data = nullptr;
  const Index* places = nullptr;
  std::int64_t count = 0;
  std::int64_t granule = 16;
  std::int64_t rounds = 1;
  float operand = 0.0F;
};

/// Each leaves its sum in `result`, so that no compiler drops the loop. Returns multiply–adds done.
double run_fma_loop(std::int64_t rounds, float operand, float* result);
/// `count` is a multiple of 256.
void run_load_loop(const float* data, std::int64_t count, std::int64_t rounds, float operand,
                   float* result);
void run_gather_loop(const GatherWork<std::uint16_t>& work, float* result);
void run_gather_loop(const GatherWork<std::uint32_t>& work, float* result);

}  // namespace spdnn::limits
