// SpMM on panels, vectorised over the images: for each output row, one FMA chain per image runs
// over the row's entries in their stored order (canonical order).
//
// Mapping: a piece of work is a block of rows of one panel. A group of rows is summed together so
// that enough independent chains are in flight to hide the FMA's latency; the panel's vectors of an
// input feature are loaded once for each entry that reads it.
// Bytes: each entry loads `width` floats of its input feature, from the cache the panel fits
// (features × width × 4 bytes), and 2 or 4 bytes of index; floor: one 64-byte load per 16 edges.
// Wins where panels fit L2; takes any CSR.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/spmm_panel.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "cpu/cpu_kernels.hpp"

HWY_BEFORE_NAMESPACE();
namespace spdnn::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
HWY_INLINE std::int64_t lanes() { return static_cast<std::int64_t>(hn::Lanes(D())); }

/// A block of rows of one panel.
template <class Index>
struct Block {
  const CsrView* w;
  const Index* col_indices;
  const float* values;
  BiasView<float> bias;
  Epilogue epilogue;
  const float* x;        ///< panel of inputs [features][width]
  float* y;              ///< panel of outputs
  std::int64_t width;
  std::uint8_t* alive;   ///< of the panel, or null
};

/// Rows `row … row + kRows` for `kVectors` vectors of images from `lane` on.
template <int kRows, int kVectors, bool kShared, class Index>
HWY_INLINE void sum_rows(const Block<Index>& b, std::int64_t row, std::int64_t lane,
                         hn::Mask<D> (&alive)[kVectors]) {
  const D d;
  const std::int64_t step = lanes();
  V sum[kRows][kVectors];
  std::int64_t begin[kRows];
  std::int64_t length[kRows];
  std::int64_t common = b.w->row_begin(row + 1) - b.w->row_begin(row);
  for (int r = 0; r < kRows; ++r) {
    begin[r] = b.w->row_begin(row + r);
    length[r] = b.w->row_begin(row + r + 1) - begin[r];
    common = HWY_MIN(common, length[r]);
    for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::Zero(d);
  }
  const float* x = b.x + lane;
  const V shared = hn::Set(d, kShared && b.w->nnz > 0 ? b.values[0] : 0.0F);
  const auto add = [&](int r, std::int64_t k) HWY_ATTR {
    const float* from = x + static_cast<std::int64_t>(b.col_indices[begin[r] + k]) * b.width;
    const V value = kShared ? shared : hn::Set(d, b.values[begin[r] + k]);
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = hn::MulAdd(value, hn::LoadU(d, from + v * step), sum[r][v]);
    }
  };
  for (std::int64_t k = 0; k < common; ++k) {
    for (int r = 0; r < kRows; ++r) add(r, k);
  }
  for (int r = 0; r < kRows; ++r) {
    for (std::int64_t k = common; k < length[r]; ++k) add(r, k);
  }
  const V lower = hn::Set(d, b.epilogue.lower);
  const V upper = hn::Set(d, b.epilogue.upper);
  for (int r = 0; r < kRows; ++r) {
    const V bias = hn::Set(d, b.bias.at(row + r));
    for (int v = 0; v < kVectors; ++v) {
      const V y = hn::Min(hn::Max(hn::Add(sum[r][v], bias), lower), upper);
      alive[v] = hn::Or(alive[v], hn::Ne(y, hn::Zero(d)));
      hn::StoreU(y, d, b.y + (row + r) * b.width + lane + v * step);
    }
  }
}

/// Sets the flags of images with a nonzero output; another block may do the same at once.
template <int kVectors>
HWY_INLINE void store_alive(const hn::Mask<D> (&alive)[kVectors], std::uint8_t* flags) {
  const D d;
  for (int v = 0; v < kVectors; ++v) {
    HWY_ALIGN float bits[16];
    hn::Store(hn::IfThenElseZero(alive[v], hn::Set(d, 1.0F)), d, bits);
    for (std::int64_t i = 0; i < lanes(); ++i) {
      if (bits[i] != 0.0F) __atomic_store_n(flags + v * lanes() + i, 1, __ATOMIC_RELAXED);
    }
  }
}

template <int kVectors, bool kShared, class Index>
HWY_INLINE void block_lanes(const Block<Index>& b, Range rows, std::int64_t lane) {
  constexpr int kRows = 4;
  hn::Mask<D> alive[kVectors];
  for (auto& mask : alive) mask = hn::FirstN(D(), 0);
  std::int64_t row = rows.begin;
  for (; row + kRows <= rows.end; row += kRows) sum_rows<kRows, kVectors, kShared>(b, row, lane, alive);
  for (; row < rows.end; ++row) sum_rows<1, kVectors, kShared>(b, row, lane, alive);
  if (b.alive != nullptr) store_alive<kVectors>(alive, b.alive + lane);
}

template <bool kShared, class Index>
void block(const Block<Index>& b, Range rows) {
  std::int64_t lane = 0;
  for (; lane + 2 * lanes() <= b.width; lane += 2 * lanes()) block_lanes<2, kShared>(b, rows, lane);
  for (; lane + lanes() <= b.width; lane += lanes()) block_lanes<1, kShared>(b, rows, lane);
}

template <class Index>
void run_typed(const SpmmArgs<float>& args, ThreadTeam& team) {
  const CsrView& w = args.weights->csr;
  const std::int64_t batch = args.x.live == nullptr ? args.x.batch : *args.x.live;
  const std::int64_t width = args.x.width;
  const std::int64_t panels = (batch + width - 1) / width;
  // Enough pieces that threads finish together, but no fewer rows than amortise a piece.
  const std::int64_t row_blocks =
      panels >= 4 * team.size() ? 1 : HWY_MIN(std::int64_t{4} * team.size(), w.rows / 64 + 1);
  if (args.alive != nullptr) {
    for (std::int64_t i = 0; i < batch; ++i) args.alive[i] = 0;
  }
  team.parallel_for(panels * row_blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const std::int64_t panel = piece / row_blocks;
      const std::int64_t part = piece % row_blocks;
      const Range rows = {w.rows * part / row_blocks, w.rows * (part + 1) / row_blocks};
      const Block<Index> b = {&w,
                              static_cast<const Index*>(w.col_indices),
                              static_cast<const float*>(w.values),
                              args.bias,
                              args.epilogue,
                              args.x.panel(panel),
                              args.y.panel(panel),
                              width,
                              args.alive == nullptr ? nullptr : args.alive + panel * width};
      if (w.shared_value) {
        block<true>(b, rows);
      } else {
        block<false>(b, rows);
      }
    }
  });
}

}  // namespace

void run(const SpmmArgs<float>& args, Stream& stream) {
  if (args.weights->csr.index_type == DType::u16) {
    run_typed<std::uint16_t>(args, stream.team());
  } else {
    run_typed<std::uint32_t>(args, stream.team());
  }
}

/// Whether MulAdd rounds once on this target, as canonical order needs.
bool has_fma() { return HWY_NATIVE_FMA != 0; }

}  // namespace spdnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace spdnn {
namespace {

HWY_EXPORT(run);
HWY_EXPORT(has_fma);

std::optional<std::string> declines(const SpmmShape& shape, const DeviceInfo& /*device*/) {
  if (!HWY_DYNAMIC_DISPATCH(has_fma)()) return "the processor has no fused multiply-add";
  if (shape.value_type != DType::f32) return "values are not fp32";
  if (shape.panel_width % 16 != 0) return "panels are not a multiple of 16 images wide";
  return std::nullopt;
}

void dispatch(const SpmmArgs<float>& args, Stream& stream) {
  HWY_DYNAMIC_DISPATCH(run)(args, stream);
}

}  // namespace

const SpmmKernel<float>& spmm_panel_cpu() {
  static constexpr SpmmKernel<float> kernel = {"panel",  DeviceKind::cpu, Order::canonical,
                                               declines, upload_csr,      dispatch};
  return kernel;
}

}  // namespace spdnn
#endif  // HWY_ONCE
