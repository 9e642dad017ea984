// From run-time values to a kernel's template arguments.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "spdnn/matrix.hpp"

namespace spdnn::cuda {

template <int V>
using Constant = std::integral_constant<int, V>;

/// Calls `body(Constant<V>)` for panels of 32 · V images.
template <class Body>
void with_width(std::int64_t width, Body body) {
  switch (width) {
    case 32: return body(Constant<1>{});
    case 64: return body(Constant<2>{});
    case 128: return body(Constant<4>{});
    default:
      throw DeviceError("CUDA kernels take panels of 32, 64 or 128 images, not " +
                        std::to_string(width));
  }
}

/// Calls `body` with a value of the columns' type.
template <class Body>
void with_index(DType type, Body body) {
  if (type == DType::u16) return body(std::uint16_t{});
  return body(std::uint32_t{});
}

template <class Body>
void with_bool(bool value, Body body) {
  if (value) return body(std::true_type{});
  return body(std::false_type{});
}

}  // namespace spdnn::cuda
