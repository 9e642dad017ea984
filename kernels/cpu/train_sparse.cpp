// Forward and backward of sparse layers on panels, vectorised over the images.
//
// forward and backward_data are one loop: a row (of W, or of Wᵀ through its CSC view) sums its
// entries' activations, a panel at a time. Work: rows of one panel. Bytes for an entry and panel:
// 128 of activations from the second-level cache, which a panel fits up to 4096 features, 8 of
// index and value; the floor is that cache's load rate. Wᵀ's values are gathered into CSC order
// once a call, which neighbouring columns do from the same cache lines.
//
// backward_weights takes as many entries as a vector has lanes and sums, for each, the products of
// its row of dZ and its row of X over the images of several panels, then across lanes for all of
// them at once. Work: a run of rows with all their images, so that no two threads add to one entry.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/train_sparse.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "cpu/cpu_kernels.hpp"
#include "cpu/train_dispatch.hpp"
#include "cpu/train_lanes.hpp"

HWY_BEFORE_NAMESPACE();
namespace spdnn::HWY_NAMESPACE {
namespace {

/// A matrix by rows, as one direction of a pattern sees it.
template <class T>
struct Lists {
  std::int64_t rows;
  const std::int64_t* offsets;
  const std::uint32_t* indices;
  const T* values;
};

/// Vectors of images summed side by side, and chains for each of them: enough additions in flight
/// to hide their latency.
template <class T>
inline constexpr int kVectors = HWY_MIN(4, 32 / kLanes<T>);
template <class T>
inline constexpr int kChains = 4 / kVectors<T>;

/// The sums of some rows for `vectors` vectors of images from `lane` on. Chains are as many for any
/// number of vectors, so that an image's sums are the same whoever stands beside it.
template <int vectors, class T, class Store>
HWY_INLINE void sum_vectors(const Lists<T>& lists, Range rows, const T* in, std::int64_t width,
                            std::int64_t lane, const Store& store) {
  const Tag<T> d;
  constexpr int chains = kChains<T>;
  for (std::int64_t row = rows.begin; row < rows.end; ++row) {
    Vec<T> sum[chains][vectors];
    for (auto& chain : sum) {
      for (Vec<T>& s : chain) s = hn::Zero(d);
    }
    const auto add = [&](std::int64_t k, Vec<T>(&chain)[vectors]) HWY_ATTR {
      const T* from = in + std::int64_t{lists.indices[k]} * width + lane;
      const auto value = hn::Set(d, lists.values[k]);
      for (int v = 0; v < vectors; ++v) {
        chain[v] = hn::MulAdd(value, hn::LoadU(d, from + v * kLanes<T>), chain[v]);
      }
    };
    std::int64_t k = lists.offsets[row];
    const std::int64_t end = lists.offsets[row + 1];
    for (; k + chains <= end; k += chains) {
      for (int c = 0; c < chains; ++c) add(k + c, sum[c]);
    }
    for (; k < end; ++k) add(k, sum[0]);
    for (int v = 0; v < vectors; ++v) {
      for (int c = 1; c < chains; ++c) sum[0][v] = hn::Add(sum[0][v], sum[c][v]);
      store(row, lane + v * kLanes<T>, sum[0][v]);
    }
  }
}

/// The same for the lanes of a panel, of which the first `used` have images.
template <class T, class Store>
void sum_rows(const Lists<T>& lists, Range rows, const T* in, std::int64_t width, std::int64_t used,
              const Store& store) {
  constexpr std::int64_t together = kVectors<T> * kLanes<T>;
  std::int64_t lane = 0;
  for (; lane + together <= used; lane += together) {
    sum_vectors<kVectors<T>>(lists, rows, in, width, lane, store);
  }
  for (; lane < used; lane += kLanes<T>) sum_vectors<1>(lists, rows, in, width, lane, store);
  for (; lane < width; lane += kLanes<T>) {
    for (std::int64_t row = rows.begin; row < rows.end; ++row) store.clear(row, lane);
  }
}

/// Sums all rows for all panels on a team; `store_of(panel)` is what follows the sums of one.
template <class T, class StoreOf>
void sum_panels(const Lists<T>& lists, const Panels<const T>& in, ThreadTeam& team,
                const StoreOf& store_of) {
  const std::int64_t panels = in.count();
  // Enough pieces that threads finish together, but no fewer rows than amortise a piece.
  const std::int64_t parts = team.size() == 1 || panels >= 4 * team.size()
                                 ? 1
                                 : HWY_MIN(std::int64_t{4} * team.size(), lists.rows / 16 + 1);
  team.parallel_for(panels * parts, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const std::int64_t panel = piece / parts;
      const std::int64_t part = piece % parts;
      sum_rows(lists, {lists.rows * part / parts, lists.rows * (part + 1) / parts}, in.panel(panel),
               in.width, lanes_used<T>(in, panel), store_of(panel));
    }
  });
}

template <class T>
void forward(const ForwardArgs<T>& args, ThreadTeam& team) {
  const PatternView& w = args.layer.pattern;
  const Lists<T> lists = {w.rows, w.row_offsets, w.col_indices, args.layer.values};
  sum_panels(lists, args.x, team, [&](std::int64_t panel) {
    return StoreActivation<T>{args.layer.bias, args.y.panel(panel), args.y.width,
                              T{args.activation.lower}, T{args.activation.upper}};
  });
}

template <class T>
void backward_data(const BackwardDataArgs<T>& args, ThreadTeam& team) {
  const PatternView& w = args.layer.pattern;
  team.parallel_for(w.nnz, std::int64_t{1} << 14U, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      args.workspace[k] = args.layer.values[w.entries[k]];
    }
  });
  const Lists<T> lists = {w.cols, w.col_offsets, w.row_indices, args.workspace};
  sum_panels(lists, args.dz, team, [&](std::int64_t panel) {
    return StoreMasked<T>{args.x.panel(panel), args.dx.panel(panel), args.x.width,
                          T{args.activation.lower}, T{args.activation.upper}};
  });
}

/// The gradient of `kLanes` entries from k on, of which `count` are there, from panels `panels`.
/// Most vectors lie within a row, whose dZ is then loaded once for all of their entries.
template <bool kOneRow, class T>
HWY_INLINE Vec<T> sum_entries(const BackwardWeightsArgs<T>& args, Range panels, std::int64_t k,
                              int count, std::int64_t row) {
  const Tag<T> d;
  const PatternView& w = args.pattern;
  const std::int64_t width = args.x.width;
  const T* dz_at[kLanes<T>];
  const T* x_at[kLanes<T>];
  for (int j = 0; j < kLanes<T>; ++j) {
    const std::int64_t entry = k + HWY_MIN(j, count - 1);
    while (!kOneRow && entry >= w.row_offsets[row + 1]) ++row;
    dz_at[j] = args.dz.data + row * width;
    x_at[j] = args.x.data + std::int64_t{w.col_indices[entry]} * width;
  }
  Vec<T> sum[kLanes<T>];
  for (Vec<T>& s : sum) s = hn::Zero(d);
  for (std::int64_t p = panels.begin; p < panels.end; ++p) {
    const std::int64_t used = lanes_used<T>(args.x, p);
    for (std::int64_t lane = 0; lane < used; lane += kLanes<T>) {
      const std::int64_t dz_from = p * w.rows * width + lane;
      const std::int64_t x_from = p * w.cols * width + lane;
      const auto shared = hn::LoadU(d, dz_at[0] + dz_from);
      for (int j = 0; j < kLanes<T>; ++j) {
        const auto dz = kOneRow ? shared : hn::LoadU(d, dz_at[j] + dz_from);
        sum[j] = hn::MulAdd(dz, hn::LoadU(d, x_at[j] + x_from), sum[j]);
      }
    }
  }
  return sums_across<kLanes<T>, T>(sum);
}

/// The gradient of all entries of `rows`.
template <class T>
void sum_products(const BackwardWeightsArgs<T>& args, Range rows, std::int64_t together) {
  const Tag<T> d;
  const PatternView& w = args.pattern;
  const std::int64_t end = w.row_offsets[rows.end];
  HWY_ALIGN T last[kLanes<T>];
  for (std::int64_t p = 0; p < args.x.count(); p += together) {
    const Range panels = {p, HWY_MIN(p + together, args.x.count())};
    std::int64_t row = rows.begin;
    for (std::int64_t k = w.row_offsets[rows.begin]; k < end; k += kLanes<T>) {
      while (k >= w.row_offsets[row + 1]) ++row;
      const int count = static_cast<int>(HWY_MIN(std::int64_t{kLanes<T>}, end - k));
      auto sum = k + count <= w.row_offsets[row + 1]
                     ? sum_entries<true>(args, panels, k, count, row)
                     : sum_entries<false>(args, panels, k, count, row);
      T* to = args.dvalues + k;
      if (count == kLanes<T>) {
        if (p > 0) sum = hn::Add(sum, hn::LoadU(d, to));
        hn::StoreU(sum, d, to);
      } else {
        hn::Store(sum, d, last);
        for (int j = 0; j < count; ++j) to[j] = (p > 0 ? to[j] : T{0}) + last[j];
      }
    }
  }
}

template <class T>
void backward_weights(const BackwardWeightsArgs<T>& args, ThreadTeam& team) {
  const PatternView& w = args.pattern;
  if (args.x.batch == 0) std::fill_n(args.dvalues, w.nnz, T{0});
  const std::int64_t together = panels_together<T>(w.cols, args.x.width);
  const std::int64_t parts = team.size() == 1 ? 1 : HWY_MIN(8 * team.size(), w.rows / 4 + 1);
  team.parallel_for(parts, 1, [&](std::int64_t begin, std::int64_t end) {
    const Range rows = {w.rows * begin / parts, w.rows * end / parts};
    sum_products(args, rows, together);
    sum_bias(args.dz, rows, args.dbias);
  });
}

}  // namespace

SPDNN_LINEAR_TARGETS(sparse)

}  // namespace spdnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace spdnn {
SPDNN_LINEAR_DISPATCH(train_sparse_cpu, sparse)
}  // namespace spdnn
#endif  // HWY_ONCE
