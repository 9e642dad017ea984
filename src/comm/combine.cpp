// Combining the elements of several ranks: one pass over blocks that fit the first-level cache.
#include "combine.hpp"

#include <algorithm>
#include <array>
#include <type_traits>

namespace spdnn::comm {
namespace {

constexpr std::int64_t block_elements = 1024;

struct Sum {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      using Wide = std::common_type_t<std::make_unsigned_t<T>, unsigned>;
      return static_cast<T>(static_cast<Wide>(a) + static_cast<Wide>(b));
    } else {
      return a + b;
    }
  }
};
// `b != b` holds for NaN alone, and no comparison with NaN holds.
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return b > a || b != b ? b : a;
  }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return b < a || b != b ? b : a;
  }
};
struct BitOr {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
};
struct BitAnd {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
};

template <class T, class Operation>
void combine_typed(std::span<const void* const> inputs, std::span<void* const> outputs,
                   std::int64_t begin, std::int64_t end, Operation operation) {
  std::array<T, block_elements> block;
  for (std::int64_t first = begin; first < end; first += block_elements) {
    const std::int64_t n = std::min(block_elements, end - first);
    std::copy_n(static_cast<const T*>(inputs[0]) + first, n, block.data());
    for (const void* input : inputs.subspan(1)) {
      const T* values = static_cast<const T*>(input) + first;
      for (std::int64_t i = 0; i < n; ++i) {
        T& element = block[static_cast<std::size_t>(i)];
        element = operation(element, values[i]);
      }
    }
    for (void* output : outputs) std::copy_n(block.data(), n, static_cast<T*>(output) + first);
  }
}

template <class T>
void combine_as(std::span<const void* const> inputs, std::span<void* const> outputs,
                std::int64_t begin, std::int64_t end, Reduction reduction) {
  switch (reduction) {
    case Reduction::sum: return combine_typed<T>(inputs, outputs, begin, end, Sum{});
    case Reduction::max: return combine_typed<T>(inputs, outputs, begin, end, Max{});
    case Reduction::min: return combine_typed<T>(inputs, outputs, begin, end, Min{});
    case Reduction::bit_or:
    case Reduction::bit_and: break;
  }
  if constexpr (std::is_integral_v<T>) {
    if (reduction == Reduction::bit_or)
      return combine_typed<T>(inputs, outputs, begin, end, BitOr{});
    return combine_typed<T>(inputs, outputs, begin, end, BitAnd{});
  }
}

}  // namespace

void combine(std::span<const void* const> inputs, std::span<void* const> outputs,
             std::int64_t begin, std::int64_t end, DType type, Reduction reduction) {
  switch (type) {
    case DType::f32: return combine_as<float>(inputs, outputs, begin, end, reduction);
    case DType::f64: return combine_as<double>(inputs, outputs, begin, end, reduction);
    case DType::u8: return combine_as<std::uint8_t>(inputs, outputs, begin, end, reduction);
    case DType::u16: return combine_as<std::uint16_t>(inputs, outputs, begin, end, reduction);
    case DType::u32: return combine_as<std::uint32_t>(inputs, outputs, begin, end, reduction);
    case DType::i32: return combine_as<std::int32_t>(inputs, outputs, begin, end, reduction);
    case DType::i64: return combine_as<std::int64_t>(inputs, outputs, begin, end, reduction);
  }
}

}  // namespace spdnn::comm
