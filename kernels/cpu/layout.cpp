// Expanding sparse images into panels and packing the living images together, on the CPU.
//
// Packing writes a vector of images at a time: for each feature, lanes of two vectors are put in
// order and merged, which are two of the source's or, where the images that go side by side come
// from more, one of those and what has been merged so far. Bytes: 4 read and 4 written for each
// feature of an image kept, within the caches for small batches.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/layout.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <vector>

#include "cpu/cpu_kernels.hpp"
#include "cpu/equal_images.hpp"

#ifndef SPDNN_CPU_LAYOUT_MERGE
#define SPDNN_CPU_LAYOUT_MERGE
namespace spdnn {
/// A vector of images put together from lanes of two others, for every feature.
struct Merge {
  const float* a;
  const float* b;
  float* to;
  std::int32_t lanes_a[16];  ///< lane of `a`, by lane of `to`
  std::int32_t lanes_b[16];
  std::uint16_t from_b;  ///< lanes of `to` that come from `b`
};
}  // namespace spdnn
#endif

HWY_BEFORE_NAMESPACE();
namespace spdnn::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;

std::int64_t merge_lanes() { return static_cast<std::int64_t>(hn::Lanes(D())); }

void run_merges(const std::vector<Merge>& merges, std::int64_t features, std::int64_t width) {
  // Features that stay in L1 while all merges pass over them.
  constexpr std::int64_t kFeaturesAtOnce = 64;
  const D d;
  for (std::int64_t first = 0; first < features; first += kFeaturesAtOnce) {
    const std::int64_t last = HWY_MIN(features, first + kFeaturesAtOnce);
    for (const Merge& merge : merges) {
      const std::uint8_t bits[8] = {static_cast<std::uint8_t>(merge.from_b & 0xFF),
                                    static_cast<std::uint8_t>(merge.from_b >> 8)};
      const auto from_b = hn::LoadMaskBits(d, bits);
      const auto order_a = hn::SetTableIndices(d, merge.lanes_a);
      const auto order_b = hn::SetTableIndices(d, merge.lanes_b);
      for (std::int64_t at = first * width; at < last * width; at += width) {
        const auto a = hn::TableLookupLanes(hn::LoadU(d, merge.a + at), order_a);
        const auto b = hn::TableLookupLanes(hn::LoadU(d, merge.b + at), order_b);
        hn::StoreU(hn::IfThenElse(from_b, b, a), d, merge.to + at);
      }
    }
  }
}

}  // namespace spdnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace spdnn {
namespace {

HWY_EXPORT(merge_lanes);
HWY_EXPORT(run_merges);

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

/// Merges of the lanes of one vector, `to`, as they are given in ascending order.
class MergeList {
 public:
  MergeList(std::vector<Merge>& merges, float* to) : merges_(merges), to_(to) {}
  /// Lane `lane` of `to` is lane `from_lane` of `from`.
  void add(std::int64_t lane, const float* from, std::int64_t from_lane) {
    if (from != from_) {
      from_ = from;
      if (sources_++ != 1) {
        merges_.push_back({sources_ == 1 ? from : to_, from, to_, {}, {}, 0});
        for (std::int32_t i = 0; i < 16; ++i) merges_.back().lanes_a[i] = i;
      }
      merges_.back().b = from;
    }
    Merge& merge = merges_.back();
    if (sources_ == 1) {
      merge.lanes_a[lane] = static_cast<std::int32_t>(from_lane);
    } else {
      merge.lanes_b[lane] = static_cast<std::int32_t>(from_lane);
      merge.from_b = static_cast<std::uint16_t>(merge.from_b | (1U << lane));
    }
  }

 private:
  std::vector<Merge>& merges_;
  float* to_;
  const float* from_ = nullptr;
  int sources_ = 0;
};

/// Fills the slots `to`, all of one panel, with the images of `slots`, which ascend.
void move_images(const CompactArgs<float>& args, const std::int32_t* slots, Range to,
                 std::vector<Merge>& merges) {
  const std::int64_t width = args.x.width;
  const std::int64_t lanes = HWY_DYNAMIC_DISPATCH(merge_lanes)();
  merges.clear();
  for (std::int64_t first = to.begin / lanes * lanes; first < to.end; first += lanes) {
    float* out = args.y.panel(first / width) + first % width;
    MergeList list(merges, out);
    for (std::int64_t slot = first; slot < std::min(first + lanes, to.end); ++slot) {
      if (slot < to.begin) {
        list.add(slot - first, out, slot - first);  // images that are there already
        continue;
      }
      const std::int64_t from = slots[slot - to.begin];
      const std::int64_t vector = from / lanes * lanes;
      args.ids_out[slot] = args.ids[from];
      list.add(slot - first, args.x.panel(vector / width) + vector % width, from - vector);
    }
  }
  HWY_DYNAMIC_DISPATCH(run_merges)(merges, args.x.features, width);
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
        std::vector<Merge> merges;
        for (std::int64_t p = first_panel + begin; p < first_panel + end; ++p) {
          const Range slots = {std::max(p * width, args.first_out),
                               std::min((p + 1) * width, args.first_out + count)};
          move_images(args, kept + (slots.begin - args.first_out), slots, merges);
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
