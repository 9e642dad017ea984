// Expanding sparse images into panels and packing the living images together, on the CPU.
//
// Packing moves a vector of images at a time: for each feature, a vector of the source panel is
// loaded, its living lanes are pressed together, and as many are stored behind those before them.
// Bytes: 4 read and 4 written for each feature of an image kept, within the caches for small
// batches.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/layout.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <vector>

#include "cpu/cpu_kernels.hpp"
#include "cpu/equal_images.hpp"

#ifndef SPDNN_CPU_LAYOUT_MOVE
#define SPDNN_CPU_LAYOUT_MOVE
namespace spdnn {
/// Lanes `bits` of the vector at `from`, for every feature, to `count` lanes from `to` on.
struct Move {
  const float* from;
  float* to;
  std::uint16_t bits;
  std::uint16_t count;
};
}  // namespace spdnn
#endif

HWY_BEFORE_NAMESPACE();
namespace spdnn::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;

std::int64_t move_lanes() { return static_cast<std::int64_t>(hn::Lanes(D())); }

void run_moves(const std::vector<Move>& moves, std::int64_t features, std::int64_t width) {
  // Features that stay in L1 while all moves pass over them.
  constexpr std::int64_t kFeaturesAtOnce = 64;
  const D d;
  for (std::int64_t first = 0; first < features; first += kFeaturesAtOnce) {
    const std::int64_t last = HWY_MIN(features, first + kFeaturesAtOnce);
    for (const Move& move : moves) {
      const std::uint8_t bits[8] = {static_cast<std::uint8_t>(move.bits & 0xFF),
                                    static_cast<std::uint8_t>(move.bits >> 8)};
      const auto chosen = hn::LoadMaskBits(d, bits);
      const auto stored = hn::FirstN(d, move.count);
      for (std::int64_t f = first; f < last; ++f) {
        const auto lanes = hn::LoadU(d, move.from + f * width);
        hn::BlendedStore(hn::Compress(lanes, chosen), stored, d, move.to + f * width);
      }
    }
  }
}

}  // namespace spdnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace spdnn {
namespace {

HWY_EXPORT(move_lanes);
HWY_EXPORT(run_moves);

template <class Index>
void expand_panel(const ExpandArgs<float>& args, std::int64_t p) {
  const CsrView& images = args.images;
  const std::int64_t width = args.y.width;
  float* panel = args.y.panel(p);
  std::fill_n(panel, args.y.features * width, 0.0F);
  const auto* cols = static_cast<const Index*>(images.col_indices);
  const auto* values = static_cast<const float*>(images.values);
  const std::int64_t last = std::min(images.rows, (p + 1) * width);
  for (std::int64_t image = p * width; image < last; ++image) {
    for (std::int64_t k = images.row_begin(image); k < images.row_begin(image + 1); ++k) {
      panel[static_cast<std::int64_t>(cols[k]) * width + image % width] =
          values[images.shared_value ? 0 : k];
    }
  }
}

void expand(const ExpandArgs<float>& args, Stream& stream) {
  stream.team().parallel_for(args.y.count(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      if (args.images.index_type == DType::u16) {
        expand_panel<std::uint16_t>(args, p);
      } else {
        expand_panel<std::uint32_t>(args, p);
      }
    }
  });
}

std::size_t compact_workspace_bytes(std::int64_t batch) {
  return static_cast<std::size_t>(batch) * sizeof(std::int32_t);
}

/// Lists the slots that stay in `kept`, gives the others their parent, and returns how many stay.
std::int32_t choose_slots(const CompactArgs<float>& args, std::int64_t batch, std::int32_t* kept) {
  std::int32_t count = 0;
  std::int64_t representative = -1;
  for (std::int64_t slot = 0; slot < batch; ++slot) {
    const bool alive = args.alive[slot] != 0;
    if (!alive && args.keep_representative && representative >= 0) {
      args.parent[args.ids[slot]] = args.ids[representative];
    }
    if (alive || (args.keep_representative && representative < 0)) {
      kept[count++] = static_cast<std::int32_t>(slot);
    }
    if (!alive && representative < 0) representative = slot;
  }
  return count;
}

/// Fills the slots `to`, all of one panel, with the images of `slots`, which ascend.
void move_images(const CompactArgs<float>& args, const std::int32_t* slots, Range to,
                 std::vector<Move>& moves) {
  const std::int64_t width = args.x.width;
  const std::int64_t lanes = HWY_DYNAMIC_DISPATCH(move_lanes)();
  float* out = args.y.panel(to.begin / width) + to.begin % width;
  moves.clear();
  std::int64_t vector = -1;  // of the source, counted over all panels
  for (std::int64_t i = 0; i < to.size(); ++i) {
    args.ids_out[to.begin + i] = args.ids[slots[i]];
    if (slots[i] / lanes != vector) {
      vector = slots[i] / lanes;
      const std::int64_t first = vector * lanes;
      moves.push_back({args.x.panel(first / width) + first % width, out + i, 0, 0});
    }
    Move& move = moves.back();
    move.bits = static_cast<std::uint16_t>(move.bits | (1U << (slots[i] % lanes)));
    ++move.count;
  }
  HWY_DYNAMIC_DISPATCH(run_moves)(moves, args.x.features, width);
}

void compact(const CompactArgs<float>& args, Stream& stream) {
  const std::int64_t batch = args.x.live == nullptr ? args.x.batch : *args.x.live;
  const std::int64_t width = args.x.width;
  auto* kept = static_cast<std::int32_t*>(args.workspace);
  const std::int64_t count = choose_slots(args, batch, kept);
  *args.live_out = static_cast<std::int32_t>(count);
  const std::int64_t first_panel = args.first_out / width;
  const std::int64_t last_panel = (args.first_out + count + width - 1) / width;
  stream.team().parallel_for(
      last_panel - first_panel, 1, [&](std::int64_t begin, std::int64_t end) {
        std::vector<Move> moves;
        for (std::int64_t p = first_panel + begin; p < first_panel + end; ++p) {
          const Range slots = {std::max(p * width, args.first_out),
                               std::min((p + 1) * width, args.first_out + count)};
          move_images(args, kept + (slots.begin - args.first_out), slots, moves);
        }
      });
}

void find_equal(const FindEqualArgs<float>& args, Stream& stream) {
  find_equal_cpu(args, stream, ~std::uint32_t{0});
}

}  // namespace

const LayoutKernels<float>& layout_cpu() {
  static constexpr LayoutKernels<float> kernels = {
      DeviceKind::cpu, expand, compact, compact_workspace_bytes, find_equal, find_unchanged_cpu};
  return kernels;
}

}  // namespace spdnn
#endif  // HWY_ONCE
