// Combining the elements of several ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "spdnn/comm.hpp"

namespace spdnn::comm {

/// Combines the elements `[begin, end)` of all `inputs`, the first input first, and writes the
/// result to the same elements of every output. An output may be one of the inputs. Integer sums
/// wrap; a NaN stays one in sum, max and min.
void combine(std::span<const void* const> inputs, std::span<void* const> outputs,
             std::int64_t begin, std::int64_t end, DType type, Reduction reduction);

/// Whether `reduction` is defined for `type`: bits of floating-point numbers are not combined.
[[nodiscard]] constexpr bool can_combine(DType type, Reduction reduction) {
  const bool bits = reduction == Reduction::bit_or || reduction == Reduction::bit_and;
  return !bits || (type != DType::f32 && type != DType::f64);
}

}  // namespace spdnn::comm
