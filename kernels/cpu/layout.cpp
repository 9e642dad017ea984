// Expanding sparse images into panels and packing the living images together, on the CPU.
#include <algorithm>

#include "cpu/cpu_kernels.hpp"

namespace spdnn {
namespace {

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

/// Fills the slots `to`, all of one panel, with the images of `slots`.
void move_images(const CompactArgs<float>& args, const std::int32_t* slots, Range to) {
  const std::int64_t width = args.x.width;
  std::vector<const float*> from;
  for (std::int64_t i = 0; i < to.size(); ++i) {
    from.push_back(args.x.panel(slots[i] / width) + slots[i] % width);
    args.ids_out[to.begin + i] = args.ids[slots[i]];
  }
  float* out = args.y.panel(to.begin / width) + to.begin % width;
  for (std::int64_t f = 0; f < args.x.features; ++f) {
    for (std::int64_t i = 0; i < to.size(); ++i) out[f * width + i] = from[i][f * width];
  }
}

void compact(const CompactArgs<float>& args, Stream& stream) {
  const std::int64_t batch = args.x.live == nullptr ? args.x.batch : *args.x.live;
  const std::int64_t width = args.x.width;
  auto* kept = static_cast<std::int32_t*>(args.workspace);
  const std::int64_t count = choose_slots(args, batch, kept);
  *args.live_out = static_cast<std::int32_t>(count);
  const std::int64_t first_panel = args.first_out / width;
  const std::int64_t last_panel = (args.first_out + count + width - 1) / width;
  stream.team().parallel_for(last_panel - first_panel, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = first_panel + begin; p < first_panel + end; ++p) {
      const Range slots = {std::max(p * width, args.first_out),
                           std::min((p + 1) * width, args.first_out + count)};
      move_images(args, kept + (slots.begin - args.first_out), slots);
    }
  });
}

}  // namespace

const LayoutKernels<float>& layout_cpu() {
  static constexpr LayoutKernels<float> kernels = {DeviceKind::cpu, expand, compact,
                                                   compact_workspace_bytes};
  return kernels;
}

}  // namespace spdnn
