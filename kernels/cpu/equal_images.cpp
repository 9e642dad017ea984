// Finding equal images among panels, and images that a layer left as they were, on the CPU.
//
// One sweep hashes all images, a lane each: 4 bytes read for each feature and image, one
// multiplication for each vector of them. Images of equal hash are then compared in full, a vector
// of images at a time: the lanes of the panel compared with are put in order by a permutation. So
// images that repeat in the same order, as in tiled input, take two loads for each feature and
// vector. Comparing a layer's input with its output ends where every image of a vector has changed,
// which mostly is at once.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/equal_images.cpp"
#include "cpu/equal_images.hpp"

#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <vector>

#include "cpu/cpu_kernels.hpp"

#ifndef SPDNN_CPU_EQUAL_COMPARISON
#define SPDNN_CPU_EQUAL_COMPARISON
namespace spdnn {
/// A vector of images, and for each lane of it which lane of another vector it is compared with.
struct Comparison {
  const float* images;
  const float* others;
  std::int64_t vector, other;  ///< numbers of the two, counted over all panels
  std::int32_t lanes[16];      ///< of `others`, by lane of `images`
  std::uint32_t equal;         ///< lanes found equal; lanes not asked for may be among them
};
}  // namespace spdnn
#endif

HWY_BEFORE_NAMESPACE();
namespace spdnn::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<std::uint32_t, 16>;
using V = hn::Vec<D>;
HWY_INLINE std::int64_t lanes() { return static_cast<std::int64_t>(hn::Lanes(D())); }

HWY_INLINE V load_bits(const float* from) {
  const D d;
  return hn::BitCast(d, hn::LoadU(hn::RebindToFloat<D>(), from));
}

/// The bits of `mask` as a number.
HWY_INLINE std::uint32_t bits_of(hn::Mask<D> mask) {
  std::uint8_t bytes[8] = {};
  hn::StoreMaskBits(D(), mask, bytes);
  return bytes[0] | (static_cast<std::uint32_t>(bytes[1]) << 8);
}

/// Rotating before each multiplication brings high bits down, which floats of few digits need.
HWY_INLINE V mix(V hash, V word) {
  return hn::Mul(hn::RotateRight<15>(hn::Xor(hash, word)), hn::Set(D(), 0x9E3779B1U));
}

/// Hashes of `kVectors` vectors of images. Four chains each hide the multiplication's latency.
template <int kVectors>
HWY_INLINE void hash_vectors(const float* from, std::int64_t features, std::int64_t width,
                             std::uint32_t* hashes) {
  constexpr int kChains = 4;
  const D d;
  V hash[kChains][kVectors];
  for (int c = 0; c < kChains; ++c) {
    for (V& h : hash[c]) h = hn::Set(d, 0x85EBCA6BU * static_cast<std::uint32_t>(c + 1));
  }
  std::int64_t f = 0;
  for (; f + kChains <= features; f += kChains) {
    for (int c = 0; c < kChains; ++c) {
      for (int v = 0; v < kVectors; ++v) {
        hash[c][v] = mix(hash[c][v], load_bits(from + (f + c) * width + v * lanes()));
      }
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    V all = hash[0][v];
    for (int c = 1; c < kChains; ++c) all = mix(all, hash[c][v]);
    for (std::int64_t rest = f; rest < features; ++rest) {
      all = mix(all, load_bits(from + rest * width + v * lanes()));
    }
    hn::StoreU(all, d, hashes + v * lanes());
  }
}

}  // namespace

std::int64_t equal_lanes() { return lanes(); }

/// Hashes of all images of a panel.
void hash_panel(const float* panel, std::int64_t features, std::int64_t width,
                std::uint32_t* hashes) {
  std::int64_t lane = 0;
  for (; lane + 2 * lanes() <= width; lane += 2 * lanes()) {
    hash_vectors<2>(panel + lane, features, width, hashes + lane);
  }
  for (; lane < width; lane += lanes()) {
    hash_vectors<1>(panel + lane, features, width, hashes + lane);
  }
}

void run_comparison(Comparison& c, std::int64_t features, std::int64_t width) {
  const D d;
  const auto order = hn::SetTableIndices(d, c.lanes);
  V different = hn::Zero(d);
  for (std::int64_t f = 0; f < features; ++f) {
    const V other = hn::TableLookupLanes(load_bits(c.others + f * width), order);
    different = hn::Or(different, hn::Xor(load_bits(c.images + f * width), other));
  }
  c.equal = bits_of(hn::Eq(different, hn::Zero(d)));
}

/// Flags of the images of one panel that are equal in `x` and `y`.
void compare_panel(const float* x, const float* y, std::int64_t features, std::int64_t width,
                   std::uint8_t* unchanged) {
  constexpr std::int64_t kFeaturesAtOnce = 16;
  const D d;
  for (std::int64_t lane = 0; lane < width; lane += lanes()) {
    V different = hn::Zero(d);
    for (std::int64_t f = 0; f < features;) {
      const std::int64_t end = HWY_MIN(features, f + kFeaturesAtOnce);
      for (; f < end; ++f) {
        const std::int64_t at = f * width + lane;
        different = hn::Or(different, hn::Xor(load_bits(x + at), load_bits(y + at)));
      }
      if (hn::AllFalse(d, hn::Eq(different, hn::Zero(d)))) break;
    }
    const std::uint32_t equal = bits_of(hn::Eq(different, hn::Zero(d)));
    for (std::int64_t i = 0; i < lanes(); ++i) unchanged[lane + i] = (equal >> i) & 1U;
  }
}

}  // namespace spdnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace spdnn {
namespace {

HWY_EXPORT(equal_lanes);
HWY_EXPORT(hash_panel);
HWY_EXPORT(run_comparison);
HWY_EXPORT(compare_panel);

template <class T>
std::int64_t live_images(const Panels<T>& x) {
  return x.live == nullptr ? x.batch : *x.live;
}

std::vector<std::uint32_t> hash_images(const Panels<const float>& x, std::int64_t batch,
                                       ThreadTeam& team) {
  const std::int64_t panels = (batch + x.width - 1) / x.width;
  std::vector<std::uint32_t> hashes(static_cast<std::size_t>(panels * x.width));
  team.parallel_for(panels, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      HWY_DYNAMIC_DISPATCH(hash_panel)(x.panel(p), x.features, x.width, &hashes[p * x.width]);
    }
  });
  return hashes;
}

/// A slot, and a lower one whose image has the same hash.
struct Candidate {
  std::int32_t slot, other;
};

/// Splits `slots`, which ascend, into the first of each hash, which are left out, and the others.
std::vector<Candidate> find_candidates(const std::vector<std::int32_t>& slots,
                                       const std::vector<std::uint32_t>& hashes,
                                       std::uint32_t hash_bits) {
  std::size_t size = 16;
  while (size < 2 * slots.size()) size *= 2;
  std::vector<std::int32_t> table(size, -1);
  std::vector<Candidate> candidates;
  for (const std::int32_t slot : slots) {
    const std::uint32_t hash = hashes[slot] & hash_bits;
    std::size_t at = (hash ^ (hash >> 16)) & (size - 1);
    while (table[at] >= 0 && (hashes[table[at]] & hash_bits) != hash) at = (at + 1) & (size - 1);
    if (table[at] < 0) {
      table[at] = slot;
    } else {
      candidates.push_back({slot, table[at]});
    }
  }
  return candidates;
}

/// The comparisons that all candidates together need, and for each candidate which one is its own.
std::vector<Comparison> plan_comparisons(const Panels<const float>& x,
                                         const std::vector<Candidate>& candidates,
                                         std::vector<std::size_t>& own) {
  const std::int64_t lanes = HWY_DYNAMIC_DISPATCH(equal_lanes)();
  const auto vector_at = [&](std::int64_t vector) {
    return x.panel(vector * lanes / x.width) + vector * lanes % x.width;
  };
  std::vector<Comparison> all;
  std::size_t first = 0;  // of the vector of images that candidates have reached
  for (const Candidate& candidate : candidates) {
    const std::int64_t vector = candidate.slot / lanes;
    const std::int64_t other = candidate.other / lanes;
    if (first < all.size() && all[first].vector != vector) first = all.size();
    std::size_t at = first;
    while (at < all.size() && all[at].other != other) ++at;
    if (at == all.size())
      all.push_back({vector_at(vector), vector_at(other), vector, other, {}, 0});
    all[at].lanes[candidate.slot % lanes] = static_cast<std::int32_t>(candidate.other % lanes);
    own.push_back(at);
  }
  return all;
}

}  // namespace

void find_equal_cpu(const FindEqualArgs<float>& args, Stream& stream, std::uint32_t hash_bits) {
  const Panels<const float>& x = args.x;
  const std::int64_t batch = live_images(x);
  const std::int64_t lanes = HWY_DYNAMIC_DISPATCH(equal_lanes)();
  const std::vector<std::uint32_t> hashes = hash_images(x, batch, stream.team());
  std::vector<std::int32_t> open;  // slots that may be equal to a lower one among them
  for (std::int64_t slot = 0; slot < batch; ++slot) {
    args.first[slot] = static_cast<std::int32_t>(slot);
    if (args.alive == nullptr || args.alive[slot] != 0) open.push_back(args.first[slot]);
  }
  // Each round settles all that are equal to the first image of their hash; those left, which only
  // collide with it, go on among themselves.
  while (!open.empty()) {
    const std::vector<Candidate> candidates = find_candidates(open, hashes, hash_bits);
    std::vector<std::size_t> own;
    std::vector<Comparison> comparisons = plan_comparisons(x, candidates, own);
    stream.team().parallel_for(
        std::ssize(comparisons), 1, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t c = begin; c < end; ++c) {
            HWY_DYNAMIC_DISPATCH(run_comparison)(comparisons[c], x.features, x.width);
          }
        });
    open.clear();
    for (std::size_t c = 0; c < candidates.size(); ++c) {
      const Candidate& candidate = candidates[c];
      if (((comparisons[own[c]].equal >> (candidate.slot % lanes)) & 1U) != 0) {
        args.first[candidate.slot] = candidate.other;
      } else {
        open.push_back(candidate.slot);
      }
    }
  }
}

void find_unchanged_cpu(const FindUnchangedArgs<float>& args, Stream& stream) {
  const std::int64_t batch = live_images(args.x);
  const std::int64_t width = args.x.width;
  const std::int64_t panels = (batch + width - 1) / width;
  stream.team().parallel_for(panels, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::uint8_t> flags(static_cast<std::size_t>(width));
    for (std::int64_t p = begin; p < end; ++p) {
      HWY_DYNAMIC_DISPATCH(compare_panel)
      (args.x.panel(p), args.y.panel(p), args.x.features, width, flags.data());
      std::copy_n(flags.begin(), std::min(width, batch - p * width), args.unchanged + p * width);
    }
  });
  std::fill(args.unchanged + batch, args.unchanged + args.x.batch, std::uint8_t{0});
}

}  // namespace spdnn
#endif  // HWY_ONCE
