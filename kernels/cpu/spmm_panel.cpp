// SpMM on panels, vectorised over the images: for each output row, one FMA chain per image runs
// over the row's entries in their stored order (canonical order).
//
// Mapping: a piece of work is a run of row blocks of one panel (see row_groups.hpp). Rows with
// equal column lists are summed together: an activation is loaded once for up to 8 rows, and the
// floor is the FMA rate, wherever the panel is: the activations of the next list, and the lines
// that outputs go to, are prefetched meanwhile. Rows with lists of their own load it for each
// entry, from the cache that the panel fits (features × width × 4 bytes); their floor is that
// cache's load rate. Bytes: 2 or 4 an entry and list for the columns, 4 an edge for values that
// differ; takes any CSR.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/spmm_panel.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "cpu/cpu_kernels.hpp"
#include "cpu/row_groups.hpp"

HWY_BEFORE_NAMESPACE();
namespace spdnn::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
HWY_INLINE std::int64_t lanes() { return static_cast<std::int64_t>(hn::Lanes(D())); }

/// x86 before AVX-512 has 16 vector registers, the other targets have 32.
constexpr bool kFewRegisters = HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3;
/// Rows summed at once: with two vectors each, as many chains as the registers hold.
constexpr int kRowsAtOnce = kFewRegisters ? 4 : 8;
/// The same of rows with lists of their own, which need no activations in registers.
constexpr int kOwnAtOnce = kFewRegisters ? 4 : 12;

/// One panel of a layer.
template <class Index>
struct Work {
  const RowGroups* groups;
  const Index* columns;
  float shared_value;  ///< where all are equal
  BiasView<float> bias;
  Epilogue epilogue;
  const float* x;  ///< panel of inputs [features][width]
  float* y;        ///< panel of outputs
  std::int64_t width;
  std::int64_t used;    ///< lanes that hold images
  std::uint8_t* alive;  ///< of the panel, or null
};

/// `kVectors` vectors of the images of a panel. A copy of what sums need, so that no store to `y`
/// makes the compiler load it again.
template <int kVectors, class Index>
struct Strip {
  Strip(const Work<Index>& work, std::int64_t lane)
      : columns(work.columns),
        values(work.groups->values.data()),
        rows(work.groups->rows.data()),
        lengths(work.groups->lengths.data()),
        x(work.x + lane),
        y(work.y + lane),
        width(work.width),
        bias(work.bias),
        shared(hn::Set(D(), work.shared_value)),
        lower(hn::Set(D(), work.epilogue.lower)),
        upper(hn::Set(D(), work.epilogue.upper)) {}
  const Index* columns;
  const float* values;
  const std::uint32_t* rows;
  const std::uint32_t* lengths;
  const float* x;
  float* y;
  std::int64_t width;
  BiasView<float> bias;
  V shared, lower, upper;

  [[nodiscard]] HWY_INLINE const float* input(std::int64_t k) const {
    return x + static_cast<std::int64_t>(columns[k]) * width;
  }
};

/// Adds the bias to a row's sums, clamps and stores them, and adds their bits to `seen`.
template <int kVectors, class Index>
HWY_INLINE void store_row(const Strip<kVectors, Index>& strip, std::int64_t row,
                          const V (&sum)[kVectors], V (&seen)[kVectors]) {
  const D d;
  const V bias = hn::Set(d, strip.bias.at(row));
  for (int v = 0; v < kVectors; ++v) {
    const V y = hn::Min(hn::Max(hn::Add(sum[v], bias), strip.lower), strip.upper);
    seen[v] = hn::Or(seen[v], y);
    hn::StoreU(y, d, strip.y + row * strip.width + v * lanes());
  }
}

/// Zeros that the compiler does not know to be equal: rows of a group with one shared value have
/// equal sums, and it would compute one of them for all. Leaving out equal rows is the network
/// compiler's task; the edges counted here as executed are executed.
HWY_INLINE const float* group_zeros() {
  static const float zeros[16 * RowGroups::kMostRows] = {};
  const float* at = zeros;
  asm volatile("" : "+r"(at) : : "memory");
  return at;
}

/// Rows `[from, from + kRows)` of a block with one list of columns: each loaded activation feeds
/// all sums. One entry takes so many operations that the processor does not look ahead to the next
/// list by itself.
template <int kRows, bool kShared, int kVectors, class Index>
HWY_INLINE void sum_group(const Strip<kVectors, Index>& strip, const RowBlock& block, int from,
                          V (&seen)[kVectors]) {
  const D d;
  V sum[kRows][kVectors];
  const float* zeros = group_zeros();
  for (int r = 0; r < kRows; ++r) {
    for (V& s : sum[r]) s = hn::LoadU(d, zeros + r * lanes());
  }
  const std::uint32_t* rows = strip.rows + block.first + from;
  const float* values = strip.values + block.values + from;
  for (std::int64_t k = 0; k < block.entries; ++k) {
    const float* next = strip.input(block.columns + k + block.entries);
    const float* to = strip.y + static_cast<std::int64_t>(rows[k % kRows]) * strip.width;
    for (int v = 0; v < kVectors; ++v) {
      hwy::Prefetch(next + v * lanes());
      hwy::Prefetch(to + v * lanes());
    }
    const float* at = strip.input(block.columns + k);
    V in[kVectors];
    for (int v = 0; v < kVectors; ++v) in[v] = hn::LoadU(d, at + v * lanes());
    for (int r = 0; r < kRows; ++r) {
      const V value = kShared ? strip.shared : hn::Set(d, values[k * block.rows + r]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(value, in[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) store_row(strip, rows[r], sum[r], seen);
}

/// Adds an entry to a row's sums.
template <int kVectors, class Index>
HWY_INLINE void add_entry(const Strip<kVectors, Index>& strip, std::int64_t column, V value,
                          V (&sum)[kVectors]) {
  const float* at = strip.input(column);
  for (int v = 0; v < kVectors; ++v) {
    sum[v] = hn::MulAdd(value, hn::LoadU(D(), at + v * lanes()), sum[v]);
  }
}

/// Adds an entry of each of four rows. Loading a value into all lanes takes the processor as long
/// as loading a vector does; here one load brings four of them into every 128 bits.
template <bool kShared, int kVectors, class Index>
HWY_INLINE void add_four(const Strip<kVectors, Index>& strip, std::int64_t column,
                         std::int64_t value, V (*sum)[kVectors]) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (!kShared) {
    const V four = hn::LoadDup128(D(), strip.values + value);
    add_entry(strip, column, hn::Broadcast<0>(four), sum[0]);
    add_entry(strip, column + 1, hn::Broadcast<1>(four), sum[1]);
    add_entry(strip, column + 2, hn::Broadcast<2>(four), sum[2]);
    add_entry(strip, column + 3, hn::Broadcast<3>(four), sum[3]);
    return;
  }
#endif
  for (int r = 0; r < 4; ++r) {
    const V all = kShared ? strip.shared : hn::Set(D(), strip.values[value + r]);
    add_entry(strip, column + r, all, sum[r]);
  }
}

/// Brings what a block of own lists reads next into L2, and what it reads soon into L1: no stream
/// of 12 rows' entries is regular enough for the processor to do so by itself.
template <bool kShared, int kVectors, class Index>
HWY_INLINE void prefetch_lists(const Strip<kVectors, Index>& strip, std::int64_t column,
                               std::int64_t value) {
  constexpr std::int64_t kSoon = 128;  // entries
  constexpr std::int64_t kNext = 2048;
  const Index* columns = strip.columns + column;
  __builtin_prefetch(columns + kNext, 0, 2);
  __builtin_prefetch(columns + kSoon, 0, 3);
  if (kShared) return;
  const float* values = strip.values + value;
  __builtin_prefetch(values + kNext, 0, 2);
  __builtin_prefetch(values + kSoon, 0, 3);
}

/// Ends row `from + r` of a block of own lists and those after it: what is left of each row stands
/// from entry `rest` of the block on. Rows are template arguments, which keeps sums in registers.
template <int r, bool kShared, int kRows, int kVectors, class Index>
HWY_INLINE void finish_own(const Strip<kVectors, Index>& strip, const RowBlock& block, int from,
                           std::int64_t& rest, V (&sum)[kRows][kVectors], V (&seen)[kVectors]) {
  const std::int64_t at = std::int64_t{block.first} + from + r;
  const std::int64_t end = rest + strip.lengths[at] - block.entries;
  for (; rest < end; ++rest) {
    const V value = kShared ? strip.shared : hn::Set(D(), strip.values[block.values + rest]);
    add_entry(strip, block.columns + rest, value, sum[r]);
  }
  store_row(strip, strip.rows[at], sum[r], seen);
  if constexpr (r + 1 < kRows) finish_own<r + 1, kShared>(strip, block, from, rest, sum, seen);
}

/// Rows `[from, from + kRows)` of a block with a list of columns each, summed side by side so that
/// enough chains are in flight to hide the FMA's latency. Of a row that stands alone all is rest.
template <int kRows, bool kShared, int kVectors, class Index>
HWY_INLINE void sum_own(const Strip<kVectors, Index>& strip, const RowBlock& block, int from,
                        std::int64_t& rest, V (&seen)[kVectors]) {
  V sum[kRows][kVectors];
  for (auto& row : sum) {
    for (V& s : row) s = hn::Zero(D());
  }
  if constexpr (kRows > 1) {
    const std::int64_t end = std::int64_t{block.entries} * block.rows;
    for (std::int64_t k = from; k < end; k += block.rows) {
      prefetch_lists<kShared>(strip, block.columns + k, block.values + k);
      for (int r = 0; r < kRows; r += 4) {
        add_four<kShared>(strip, block.columns + k + r, block.values + k + r, sum + r);
      }
    }
  }
  finish_own<0, kShared>(strip, block, from, rest, sum, seen);
}

/// Sets the flags of images with a nonzero output, whose bits `seen` has; a zero has at most its
/// sign. Another thread may do the same at once.
template <int kVectors>
HWY_INLINE void store_alive(const V (&seen)[kVectors], std::uint8_t* flags) {
  const D d;
  for (int v = 0; v < kVectors; ++v) {
    HWY_ALIGN float bits[16];
    hn::Store(hn::Abs(seen[v]), d, bits);
    for (std::int64_t i = 0; i < lanes(); ++i) {
      std::uint32_t word = 0;
      std::memcpy(&word, bits + i, sizeof word);
      if (word != 0) __atomic_store_n(flags + v * lanes() + i, std::uint8_t{1}, __ATOMIC_RELAXED);
    }
  }
}

/// The blocks `[begin, end)` for `kVectors` vectors of images from `lane` on.
template <int kVectors, bool kShared, class Index>
void sum_blocks(const Work<Index>& work, Range blocks, std::int64_t lane) {
  const Strip<kVectors, Index> strip(work, lane);
  V seen[kVectors];  // bits of all outputs
  for (V& bits : seen) bits = hn::Zero(D());
  for (std::int64_t b = blocks.begin; b < blocks.end; ++b) {
    const RowBlock& block = work.groups->blocks[b];
    if (block.own_lists) {
      std::int64_t rest = std::int64_t{block.entries} * block.rows;
      if (block.rows == 1) {
        sum_own<1, kShared>(strip, block, 0, rest, seen);
      } else {
        static_assert(RowGroups::kOwnRows % kOwnAtOnce == 0);
        for (int from = 0; from < RowGroups::kOwnRows; from += kOwnAtOnce) {
          sum_own<kOwnAtOnce, kShared>(strip, block, from, rest, seen);
        }
      }
    } else if (block.rows == 8) {
      for (int from = 0; from < 8; from += kRowsAtOnce) {
        sum_group<kRowsAtOnce, kShared>(strip, block, from, seen);
      }
    } else if (block.rows == 4) {
      sum_group<4, kShared>(strip, block, 0, seen);
    } else {
      sum_group<2, kShared>(strip, block, 0, seen);
    }
  }
  if (work.alive != nullptr) store_alive<kVectors>(seen, work.alive + lane);
}

template <bool kShared, class Index>
void run_panel(const Work<Index>& work, Range blocks) {
  std::int64_t lane = 0;
  for (; lane + lanes() < work.used; lane += 2 * lanes()) {
    sum_blocks<2, kShared>(work, blocks, lane);
  }
  for (; lane < work.used; lane += lanes()) sum_blocks<1, kShared>(work, blocks, lane);
}

template <class Index>
void run_typed(const SpmmArgs<float>& args, const RowGroups& groups,
               const std::vector<Index>& columns, ThreadTeam& team) {
  const CsrView& w = args.weights->csr;
  const bool shared = w.shared_value && w.nnz > 0;
  const float shared_value = shared ? static_cast<const float*>(w.values)[0] : 0.0F;
  const std::int64_t batch = args.x.live == nullptr ? args.x.batch : *args.x.live;
  const std::int64_t width = args.x.width;
  const std::int64_t panels = (batch + width - 1) / width;
  const RowShare share = args.rows;
  const std::int64_t blocks = blocks_in(groups, share.begin, share.end, share.of).size();
  // Enough pieces that threads finish together, but no fewer blocks than amortise a piece.
  const std::int64_t parts = team.size() == 1 || panels >= 4 * team.size()
                                 ? 1
                                 : HWY_MIN(std::int64_t{4} * team.size(), blocks / 16 + 1);
  if (args.alive != nullptr) std::fill_n(args.alive, batch, std::uint8_t{0});
  team.parallel_for(panels * parts, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const std::int64_t panel = piece / parts;
      const std::int64_t part = piece % parts;
      const std::int64_t pieces = share.end - share.begin;
      const Range range = blocks_in(groups, share.begin * parts + pieces * part,
                                    share.begin * parts + pieces * (part + 1), share.of * parts);
      std::uint8_t* alive = args.alive == nullptr ? nullptr : args.alive + panel * width;
      const Work<Index> work = {&groups,
                                columns.data(),
                                shared_value,
                                args.bias,
                                args.epilogue,
                                args.x.panel(panel),
                                args.y.panel(panel),
                                width,
                                HWY_MIN(width, batch - panel * width),
                                alive};
      if (w.shared_value) {
        run_panel<true>(work, range);
      } else {
        run_panel<false>(work, range);
      }
    }
  });
}

}  // namespace

void run(const SpmmArgs<float>& args, Stream& stream) {
  const auto& groups = *static_cast<const RowGroups*>(args.weights->format.get());
  if (args.weights->csr.index_type == DType::u16) {
    run_typed(args, groups, groups.columns16, stream.team());
  } else {
    run_typed(args, groups, groups.columns32, stream.team());
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
  if (!has_fma_cpu()) return "the processor has no fused multiply-add";
  if (shape.value_type != DType::f32) return "values are not fp32";
  if (shape.panel_width % 16 != 0) return "panels are not a multiple of 16 images wide";
  return std::nullopt;
}

PreparedWeights prepare(const CsrView& host, Device& device, Stream& stream) {
  PreparedWeights prepared = upload_csr(host, device, stream);
  prepared.format = std::make_shared<const RowGroups>(find_row_groups(host));
  return prepared;
}

void dispatch(const SpmmArgs<float>& args, Stream& stream) {
  HWY_DYNAMIC_DISPATCH(run)(args, stream);
}

std::span<const std::uint32_t> rows_of(const PreparedWeights& weights, const RowShare& share) {
  const auto& groups = *static_cast<const RowGroups*>(weights.format.get());
  const Range blocks = blocks_in(groups, share.begin, share.end, share.of);
  const auto first_row = [&](std::int64_t block) {
    return block == std::ssize(groups.blocks) ? groups.rows.size() : groups.blocks[block].first;
  };
  return std::span(groups.rows)
      .subspan(first_row(blocks.begin), first_row(blocks.end) - first_row(blocks.begin));
}

}  // namespace

bool has_fma_cpu() { return HWY_DYNAMIC_DISPATCH(has_fma)(); }

const SpmmKernel<float>& spmm_panel_cpu() {
  static constexpr SpmmKernel<float> kernel = {"panel", DeviceKind::cpu, Order::canonical, declines,
                                               prepare, dispatch,        Precision::fp32,  true,
                                               rows_of};
  return kernel;
}

}  // namespace spdnn
#endif  // HWY_ONCE
