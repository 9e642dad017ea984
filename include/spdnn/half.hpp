// Numbers of 16 bits, as which training on a GPU may store activations, what comes back by them and
// the weights that are multiplied. Whatever is computed of them is computed in fp32.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "spdnn/matrix.hpp"

namespace spdnn {

/// fp16: 11 significant bits from 2⁻¹⁴ to 65,504, fewer down to 2⁻²⁴, infinite above. Rounded to
/// the nearest, halves to even, as are all conversions here.
struct Half {
  std::uint16_t bits;

  Half() = default;
  SPDNN_HOST_DEVICE explicit Half(float value) {
#if defined(__CUDA_ARCH__)
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
    const float magnitude = std::abs(value);
    std::uint32_t found = 0x7c00U;  // infinite
    if (std::isnan(value)) {
      found = 0x7e00U;
    } else if (magnitude < 65520.0F) {
      // In units of the last place: 2⁻²⁴ below 2⁻¹⁴, else 2⁻¹⁰ of the leading bit.
      const int exponent = magnitude < 0x1p-14F ? -14 : std::ilogb(magnitude);
      found = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
      found += static_cast<std::uint32_t>(exponent + 14) << 10U;
    }
    bits = static_cast<std::uint16_t>((std::signbit(value) ? 0x8000U : 0U) | found);
#endif
  }
  SPDNN_HOST_DEVICE operator float() const {
#if defined(__CUDA_ARCH__)
    float value = 0.0F;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#else
    // Exponent and fraction where fp32 has them, then the difference of the biases.
    const std::uint32_t magnitude = bits & 0x7fffU;
    float value = std::bit_cast<float>(magnitude << 13U) * 0x1p112F;
    if (magnitude >= 0x7c00U) value = std::bit_cast<float>(0x7f800000U | magnitude << 13U);
    return (bits & 0x8000U) != 0 ? -value : value;
#endif
  }
};

/// bf16: the upper half of an fp32, 8 significant bits in its whole range.
struct Bfloat16 {
  std::uint16_t bits;

  Bfloat16() = default;
  SPDNN_HOST_DEVICE explicit Bfloat16(float value) {
#if defined(__CUDA_ARCH__)
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
    const auto all = std::bit_cast<std::uint32_t>(value);
    bits = std::isnan(value)
               ? std::uint16_t{0x7fffU}
               : static_cast<std::uint16_t>((all + 0x7fffU + (all >> 16U & 1U)) >> 16U);
#endif
  }
  SPDNN_HOST_DEVICE operator float() const {
#if defined(__CUDA_ARCH__)
    return __uint_as_float(static_cast<unsigned>(bits) << 16U);
#else
    return std::bit_cast<float>(std::uint32_t{bits} << 16U);
#endif
  }
};

template <class T>
struct WideOf {
  using Type = T;
};
template <>
struct WideOf<Half> {
  using Type = float;
};
template <>
struct WideOf<Bfloat16> {
  using Type = float;
};
/// What sums of stored numbers are taken in, and what parameters and their gradients are.
template <class T>
using Wide = typename WideOf<T>::Type;
/// Whether a number takes less room than sums of it do.
template <class T>
inline constexpr bool kIsNarrow = sizeof(T) < sizeof(Wide<T>);

}  // namespace spdnn
