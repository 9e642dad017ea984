// Loops of multiply–adds fed by registers, by loads in order and by loads from random places.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "limits/limits.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "limits/loops.hpp"

HWY_BEFORE_NAMESPACE();
namespace spdnn::limits::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
HWY_INLINE std::int64_t lanes() { return static_cast<std::int64_t>(hn::Lanes(D())); }

/// x86 before AVX-512 has 16 vector registers, the other targets have 32.
constexpr bool kFewRegisters = HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3;
constexpr int kRegisterChains = kFewRegisters ? 12 : 24;
constexpr int kLoadChains = kFewRegisters ? 8 : 16;

template <int kChains>
HWY_INLINE float total(const V (&chains)[kChains]) {
  V sum = hn::Zero(D());
  for (const V& chain : chains) sum = hn::Add(sum, chain);
  return hn::GetLane(hn::SumOfLanes(D(), sum));
}

}  // namespace

double fma_loop(std::int64_t rounds, float operand, float* result) {
  const D d;
  V chains[kRegisterChains];
  for (V& chain : chains) chain = hn::Zero(d);
  const V a = hn::Set(d, operand);
  for (std::int64_t r = 0; r < rounds; ++r) {
    for (V& chain : chains) chain = hn::MulAdd(a, a, chain);
  }
  *result = total(chains);
  return static_cast<double>(rounds * kRegisterChains * lanes());
}

void load_loop(const float* data, std::int64_t count, std::int64_t rounds, float operand,
               float* result) {
  const D d;
  V chains[kLoadChains];
  for (V& chain : chains) chain = hn::Zero(d);
  const V a = hn::Set(d, operand);
  const std::int64_t step = kLoadChains * lanes();
  for (std::int64_t r = 0; r < rounds; ++r) {
    for (std::int64_t i = 0; i < count; i += step) {
      for (int c = 0; c < kLoadChains; ++c) {
        chains[c] = hn::MulAdd(a, hn::Load(d, data + i + c * lanes()), chains[c]);
      }
    }
  }
  *result = total(chains);
}

namespace {

/// `kVectors` vectors at each place.
template <int kVectors, class Index>
void gather_vectors(const GatherWork<Index>& work, float* result) {
  constexpr int kPlaces = kLoadChains / kVectors;
  const D d;
  V chains[kPlaces * kVectors];
  for (V& chain : chains) chain = hn::Zero(d);
  const V a = hn::Set(d, work.operand);
  const std::int64_t granule = kVectors * lanes();
  for (std::int64_t r = 0; r < work.rounds; ++r) {
    for (std::int64_t k = 0; k < work.count; k += kPlaces) {
      for (int p = 0; p < kPlaces; ++p) {
        const float* from = work.data + static_cast<std::int64_t>(work.places[k + p]) * granule;
        for (int v = 0; v < kVectors; ++v) {
          V& chain = chains[p * kVectors + v];
          chain = hn::MulAdd(a, hn::Load(d, from + v * lanes()), chain);
        }
      }
    }
  }
  *result = total(chains);
}

template <class Index>
void gather_typed(const GatherWork<Index>& work, float* result) {
  const std::int64_t vectors = work.granule / lanes();
  if (vectors == 1) return gather_vectors<1>(work, result);
  if (vectors == 2) return gather_vectors<2>(work, result);
  if (vectors == 4) return gather_vectors<4>(work, result);
  gather_vectors<8>(work, result);
}

}  // namespace

void gather_loop16(const GatherWork<std::uint16_t>& work, float* result) {
  gather_typed(work, result);
}
void gather_loop32(const GatherWork<std::uint32_t>& work, float* result) {
  gather_typed(work, result);
}

}  // namespace spdnn::limits::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace spdnn::limits {

HWY_EXPORT(fma_loop);
HWY_EXPORT(load_loop);
HWY_EXPORT(gather_loop16);
HWY_EXPORT(gather_loop32);

double run_fma_loop(std::int64_t rounds, float operand, float* result) {
  return HWY_DYNAMIC_DISPATCH(fma_loop)(rounds, operand, result);
}
void run_load_loop(const float* data, std::int64_t count, std::int64_t rounds, float operand,
                   float* result) {
  HWY_DYNAMIC_DISPATCH(load_loop)(data, count, rounds, operand, result);
}
void run_gather_loop(const GatherWork<std::uint16_t>& work, float* result) {
  HWY_DYNAMIC_DISPATCH(gather_loop16)(work, result);
}
void run_gather_loop(const GatherWork<std::uint32_t>& work, float* result) {
  HWY_DYNAMIC_DISPATCH(gather_loop32)(work, result);
}

}  // namespace spdnn::limits
#endif  // HWY_ONCE
