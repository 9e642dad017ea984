// Dense convolutions on panels, vectorised over the images.
//
// As the sparse ones on tiles of packed inputs (conv_tiles.hpp), but a block of filters is summed
// together, so that each packed vector loaded feeds as many multiply–adds as the block is high; the
// floor is their rate. forward and backward_data are one loop, on W or on Wᵀ, which backward_data
// writes out once a call, one matrix for each lattice of a strided window. backward_weights tiles
// dW by 4 × 4 entries: eight vectors loaded feed sixteen multiply–adds, summed across lanes once a
// tile of pixels.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/conv_dense.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <vector>

#include "cpu/conv_tiles.hpp"
#include "cpu/cpu_kernels.hpp"
#include "cpu/train_dispatch.hpp"

HWY_BEFORE_NAMESPACE();
namespace spdnn::HWY_NAMESPACE {
namespace {

/// Filters summed together: as many as registers hold beside a tile's line.
constexpr int kBlock = HWY_TARGET <= HWY_AVX3 ? 6 : 2;

/// out[row][pixel] = Σ_k values[row · terms + k] · packed[pixel + places[k]].
template <class T>
struct Product {
  const std::vector<std::int64_t>* places;
  const T* values;
  [[nodiscard]] std::int64_t terms() const { return std::ssize(*places); }
};

/// Line `line` of a tile for `kRows` rows from `row` on.
template <int kRows, class D, class T, class Store>
HWY_INLINE void sum_line(D d, const Product<T>& product, const T* packed, std::int64_t row,
                         std::int64_t y, std::int64_t x, std::int64_t width, const Store& store) {
  hn::Vec<D> sum[kRows][kTileX];
  for (auto& r : sum) {
    for (hn::Vec<D>& s : r) s = hn::Zero(d);
  }
  const T* values = product.values + row * product.terms();
  const std::int64_t* places = product.places->data();
  const std::int64_t terms = product.terms();
  for (std::int64_t k = 0; k < terms; ++k) {
    const T* from = packed + places[k] * kLanesOf<D>;
    hn::Vec<D> in[kTileX];
    for (int j = 0; j < kTileX; ++j) in[j] = hn::Load(d, from + j * kLanesOf<D>);
    for (int r = 0; r < kRows; ++r) {
      const auto value = hn::Set(d, values[r * terms + k]);
      for (int j = 0; j < kTileX; ++j) sum[r][j] = hn::MulAdd(value, in[j], sum[r][j]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < width; ++j) store(d, row + r, y, x + j, sum[r][j]);
  }
}

/// All of `rows` for one tile.
template <class D, class T, class Store>
HWY_INLINE void sum_block(D d, const Product<T>& product, const T* packed, std::int64_t row_stride,
                          const Tiles& tiles, const Tiles::Place& at, Range rows,
                          const Store& store) {
  const std::int64_t height = HWY_MIN(std::int64_t{kTileY}, tiles.height - at.y);
  const std::int64_t width = HWY_MIN(std::int64_t{kTileX}, tiles.width - at.x);
  for (std::int64_t row = rows.begin; row < rows.end;) {
    const bool block = row + kBlock <= rows.end;
    for (std::int64_t i = 0; i < height; ++i) {
      const T* line = packed + i * row_stride * kLanesOf<D>;
      if (block) {
        sum_line<kBlock>(d, product, line, row, at.y + i, at.x, width, store);
      } else {
        sum_line<1>(d, product, line, row, at.y + i, at.x, width, store);
      }
    }
    row += block ? kBlock : 1;
  }
}

template <class T>
void forward(const ForwardArgs<T>& args, ThreadTeam& team) {
  const Window2d& w = args.window;
  const TileReads reads = forward_reads(w);
  const Tiles tiles = Tiles::make(w.out_height, w.out_width, args.x);
  const std::vector<std::int64_t> places = column_places(w, reads);
  const Product<T> product = {&places, args.layer.values};
  for_each_tile<T>(reads, tiles, args.x, args.layer.pattern.rows, team,
                   [&](auto d, const Tiles::Place& at, Range rows, const T* packed) HWY_ATTR {
                     const StoreConv<T> store = {args.layer.bias,
                                                 args.y.panel(at.panel) + at.lane,
                                                 args.y.width,
                                                 w.out_pixels(),
                                                 w.out_width,
                                                 T{args.activation.lower},
                                                 T{args.activation.upper}};
                     sum_block(d, product, packed, reads.row_stride(), tiles, at, rows, store);
                   });
  clear_rest(args.y, args.layer.pattern.rows * w.out_pixels(), team);
}

template <class T>
void backward_data(const BackwardDataArgs<T>& args, ThreadTeam& team) {
  const Window2d& w = args.window;
  const PatternView& filters = args.layer.pattern;
  const BackReads back(w, filters.rows);
  T* transposed = args.workspace;
  for (std::int64_t p = 0; p < back.phases; ++p) {
    const Phase phase(w, back.reads, p);
    const std::int64_t taps = std::ssize(phase.taps);
    std::vector<std::int64_t> places;
    for (std::int64_t f = 0; f < filters.rows; ++f) {
      for (const std::int64_t at : phase.at) places.push_back(f * back.reads.channel_stride() + at);
    }
    team.parallel_for(w.channels, 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t c = begin; c < end; ++c) {
        T* to = transposed + c * std::ssize(places);
        for (std::int64_t f = 0; f < filters.rows; ++f) {
          const T* from = args.layer.values + f * filters.cols + c * w.taps();
          for (std::int64_t t = 0; t < taps; ++t) *to++ = from[phase.taps[t]];
        }
      }
    });
    const Product<T> product = {&places, transposed};
    const Tiles tiles = Tiles::make(phase.height, phase.width, args.dz);
    for_each_tile<T>(back.reads, tiles, args.dz, w.channels, team,
                     [&](auto d, const Tiles::Place& at, Range channels, const T* packed) HWY_ATTR {
                       const StoreBack<T> store = {args.x.panel(at.panel) + at.lane,
                                                   args.dx.panel(at.panel) + at.lane,
                                                   args.x.width,
                                                   w.in_pixels(),
                                                   w.in_width,
                                                   w.stride,
                                                   phase.py,
                                                   phase.px,
                                                   T{args.activation.lower},
                                                   T{args.activation.upper}};
                       sum_block(d, product, packed, back.reads.row_stride(), tiles, at, channels,
                                 store);
                     });
    transposed += w.channels * std::ssize(places);
  }
  clear_rest(args.dx, args.dx.features, team);
}

constexpr int kEntries = 4;  // of dW a side

/// Adds the products of a tile to 4 × 4 entries of dW; what lies past its ends is left out.
/// `gradients` holds a tile for each of `rows`.
template <class D, class T = hn::TFromD<D>>
HWY_INLINE void add_entries(D d, const std::vector<std::int64_t>& places, const T* packed,
                            std::int64_t row_stride, const T* gradients, Range rows,
                            std::int64_t row, std::int64_t col, T* dvalues) {
  const std::int64_t cols = std::ssize(places);
  const T* x_at[kEntries];
  const T* dz_at[kEntries];
  for (int e = 0; e < kEntries; ++e) {
    x_at[e] = packed + places[HWY_MIN(col + e, cols - 1)] * kLanesOf<D>;
    dz_at[e] =
        gradients + (HWY_MIN(row + e, rows.end - 1) - rows.begin) * kTilePixels * kLanesOf<D>;
  }
  hn::Vec<D> sum[kEntries * kEntries];
  for (hn::Vec<D>& s : sum) s = hn::Zero(d);
  for (int i = 0; i < kTileY; ++i) {
    for (int j = 0; j < kTileX; ++j) {
      const std::int64_t at = (i * row_stride + j) * kLanesOf<D>;
      hn::Vec<D> x[kEntries];
      for (int e = 0; e < kEntries; ++e) x[e] = hn::Load(d, x_at[e] + at);
      for (int r = 0; r < kEntries; ++r) {
        const auto dz = hn::Load(d, dz_at[r] + (i * kTileX + j) * kLanesOf<D>);
        for (int e = 0; e < kEntries; ++e) {
          sum[r * kEntries + e] = hn::MulAdd(dz, x[e], sum[r * kEntries + e]);
        }
      }
    }
  }
  HWY_ALIGN T sums[kEntries * kEntries];
  for (int i = 0; i < kEntries * kEntries; i += kLanesOf<D>) {
    hn::Store(sums_across<kLanesOf<D>, T, D>(sum + i), d, sums + i);
  }
  for (int r = 0; r < kEntries && row + r < rows.end; ++r) {
    for (int e = 0; e < kEntries && col + e < cols; ++e) {
      dvalues[(row + r) * cols + col + e] += sums[r * kEntries + e];
    }
  }
}

template <class T>
void backward_weights(const BackwardWeightsArgs<T>& args, ThreadTeam& team) {
  const Window2d& w = args.window;
  const std::int64_t filters = args.pattern.rows;
  const TileReads reads = forward_reads(w);
  const Tiles tiles = Tiles::make(w.out_height, w.out_width, args.x);
  const std::vector<std::int64_t> places = column_places(w, reads);
  const std::int64_t cols = std::ssize(places);
  const std::int64_t parts = HWY_MIN(std::int64_t{team.size()}, filters);
  team.parallel_for(parts, 1, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
    const Range rows = {filters * begin / parts, filters * end / parts};
    const std::int64_t inputs = reads.channels * reads.channel_stride() * kLanes<T>;
    T* packed = scratch<T>(inputs + rows.size() * kTilePixels * kLanes<T>);
    T* gradients = packed + inputs;
    T* const dvalues = args.gradient.values;
    if (!args.gradient.adds_up) {
      std::fill(dvalues + rows.begin * cols, dvalues + rows.end * cols, T{0});
    }
    for (std::int64_t tile = 0; tile < tiles.count; ++tile) {
      const Tiles::Place at = tiles.place<T>(tile);
      with_vectors<T>(at, [&](auto d) HWY_ATTR {
        using D = decltype(d);
        hn::Vec<D> dz[kTilePixels];
        pack_tile(d, reads, args.x.panel(at.panel), args.x.width, at.lane, at.y, at.x, packed);
        T* to = gradients;
        for (std::int64_t row = rows.begin; row < rows.end; ++row) {
          load_gradients(d, args.dz, w, at, row, dz);
          for (int i = 0; i < kTilePixels; ++i, to += kLanesOf<D>) hn::Store(dz[i], d, to);
        }
        for (std::int64_t col = 0; col < cols; col += kEntries) {
          for (std::int64_t row = rows.begin; row < rows.end; row += kEntries) {
            add_entries(d, places, packed, reads.row_stride(), gradients, rows, row, col, dvalues);
          }
        }
      });
    }
    sum_conv_bias(args.dz, w.out_pixels(), rows, args.gradient);
  });
}

}  // namespace

SPDNN_LINEAR_TARGETS(dense_conv)

}  // namespace spdnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace spdnn {
SPDNN_LINEAR_DISPATCH(conv_dense_cpu, dense_conv)
}  // namespace spdnn
#endif  // HWY_ONCE
