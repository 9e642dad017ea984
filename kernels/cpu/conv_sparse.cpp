// Sparse convolutions on panels, vectorised over the images: each stored weight is one multiply–add
// for each pixel of a tile, whose sums stay in registers.
//
// forward and backward_data are one loop over tiles of pixels (conv_tiles.hpp): a row's entries are
// walked once a tile, each with one broadcast and 16 multiply–adds on packed inputs. Work: tiles of
// one vector of images, and runs of filters where tiles are few. Bytes for an entry and tile: 16
// vectors from the second-level cache, 8 of index and value; the floor is that cache's load rate.
// Sums of forward are canonical: one chain a pixel, in the row's stored order; where the window
// leaves the plane a weight is multiplied by 0, which changes no sum.
//
// backward_weights holds a filter's 16 gradients of a tile in registers and sums, for each of its
// entries, their products with the packed inputs; as many entries as a vector has lanes are summed
// across it together. Work: runs of filters with all their tiles, so that no two threads add to one
// entry, and the order of sums does not depend on how many there are.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/conv_sparse.cpp"
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

/// Sums of a tile's pixels over the entries that `for_each(add)` calls `add(at, value)` for.
template <class D, class ForEach, class Store, class T = hn::TFromD<D>>
HWY_INLINE void sum_tile(D d, const T* packed, std::int64_t row_stride, const Tiles& tiles,
                         const Tiles::Place& place, std::int64_t row, const ForEach& for_each,
                         const Store& store) {
  hn::Vec<D> sum[kTilePixels];
  for (hn::Vec<D>& s : sum) s = hn::Zero(d);
  for_each([&](std::int64_t at, T value) HWY_ATTR {
    const T* from = packed + at * kLanesOf<D>;
    const auto weight = hn::Set(d, value);
    for (int i = 0; i < kTileY; ++i) {
      for (int j = 0; j < kTileX; ++j) {
        sum[i * kTileX + j] = hn::MulAdd(
            weight, hn::Load(d, from + (i * row_stride + j) * kLanesOf<D>), sum[i * kTileX + j]);
      }
    }
  });
  const std::int64_t height = HWY_MIN(std::int64_t{kTileY}, tiles.height - place.y);
  const std::int64_t width = HWY_MIN(std::int64_t{kTileX}, tiles.width - place.x);
  for (int i = 0; i < height; ++i) {
    for (int j = 0; j < width; ++j) store(d, row, place.y + i, place.x + j, sum[i * kTileX + j]);
  }
}

template <class T>
void forward(const ForwardArgs<T>& args, ThreadTeam& team) {
  const Window2d& w = args.window;
  const PatternView& filters = args.layer.pattern;
  const TileReads reads = forward_reads(w);
  const Tiles tiles = Tiles::make(w.out_height, w.out_width, args.x);
  const std::vector<std::int64_t> places = column_places(w, reads);
  for_each_tile<T>(reads, tiles, args.x, filters.rows, team,
                   [&](auto d, const Tiles::Place& at, Range rows, const T* packed) HWY_ATTR {
                     const StoreConv<T> store = {args.layer.bias,
                                                 args.y.panel(at.panel) + at.lane,
                                                 args.y.width,
                                                 w.out_pixels(),
                                                 w.out_width,
                                                 T{args.activation.lower},
                                                 T{args.activation.upper}};
                     for (std::int64_t row = rows.begin; row < rows.end; ++row) {
                       const auto entries = [&](const auto& add) HWY_ATTR {
                         for (std::int64_t k = filters.row_offsets[row];
                              k < filters.row_offsets[row + 1]; ++k) {
                           add(places[filters.col_indices[k]], args.layer.values[k]);
                         }
                       };
                       sum_tile(d, packed, reads.row_stride(), tiles, at, row, entries, store);
                     }
                   });
  clear_rest(args.y, filters.rows * w.out_pixels(), team);
}

template <class T>
void backward_data(const BackwardDataArgs<T>& args, ThreadTeam& team) {
  const Window2d& w = args.window;
  const PatternView& filters = args.layer.pattern;
  team.parallel_for(filters.nnz, std::int64_t{1} << 14U, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      args.workspace[k] = args.layer.values[filters.entries[k]];
    }
  });
  const BackReads back(w, filters.rows);
  for (std::int64_t p = 0; p < back.phases; ++p) {
    const Phase phase(w, back.reads, p);
    const Tiles tiles = Tiles::make(phase.height, phase.width, args.dz);
    for_each_tile<T>(
        back.reads, tiles, args.dz, w.channels, team,
        [&](auto d, const Tiles::Place& place, Range channels, const T* packed) HWY_ATTR {
          const StoreBack<T> store = {args.x.panel(place.panel) + place.lane,
                                      args.dx.panel(place.panel) + place.lane,
                                      args.x.width,
                                      w.in_pixels(),
                                      w.in_width,
                                      w.stride,
                                      phase.py,
                                      phase.px,
                                      T{args.activation.lower},
                                      T{args.activation.upper}};
          for (std::int64_t c = channels.begin; c < channels.end; ++c) {
            const auto entries = [&](const auto& add) HWY_ATTR {
              for (std::size_t t = 0; t < phase.taps.size(); ++t) {
                const std::int64_t col = c * w.taps() + phase.taps[t];
                for (std::int64_t e = filters.col_offsets[col]; e < filters.col_offsets[col + 1];
                     ++e) {
                  add(filters.row_indices[e] * back.reads.channel_stride() + phase.at[t],
                      args.workspace[e]);
                }
              }
            };
            sum_tile(d, packed, back.reads.row_stride(), tiles, place, c, entries, store);
          }
        });
  }
  clear_rest(args.dx, args.dx.features, team);
}

/// Adds the products of one tile to the gradients of a filter's entries.
template <class D, class T = hn::TFromD<D>>
HWY_INLINE void add_products(D d, const PatternView& filters,
                             const std::vector<std::int64_t>& places, std::int64_t row,
                             const hn::Vec<D>* dz, const T* packed, std::int64_t row_stride,
                             T* dvalues) {
  const std::int64_t end = filters.row_offsets[row + 1];
  for (std::int64_t k = filters.row_offsets[row]; k < end; k += kLanesOf<D>) {
    const auto count = static_cast<int>(HWY_MIN(std::int64_t{kLanesOf<D>}, end - k));
    hn::Vec<D> sums[kLanesOf<D>];
    for (int e = 0; e < kLanesOf<D>; ++e) {
      const T* from = packed + places[filters.col_indices[k + HWY_MIN(e, count - 1)]] * kLanesOf<D>;
      hn::Vec<D> chain[kTileY];
      for (int i = 0; i < kTileY; ++i) {
        const T* line = from + i * row_stride * kLanesOf<D>;
        chain[i] = hn::Mul(dz[i * kTileX], hn::Load(d, line));
        for (int j = 1; j < kTileX; ++j) {
          chain[i] = hn::MulAdd(dz[i * kTileX + j], hn::Load(d, line + j * kLanesOf<D>), chain[i]);
        }
      }
      for (int i = 1; i < kTileY; ++i) chain[0] = hn::Add(chain[0], chain[i]);
      sums[e] = chain[0];
    }
    const auto sum = sums_across<kLanesOf<D>, T, D>(sums);
    if (count == kLanesOf<D>) {
      hn::StoreU(hn::Add(hn::LoadU(d, dvalues + k), sum), d, dvalues + k);
    } else {
      HWY_ALIGN T last[kLanesOf<D>];
      hn::Store(sum, d, last);
      for (int e = 0; e < count; ++e) dvalues[k + e] += last[e];
    }
  }
}

template <class T>
void backward_weights(const BackwardWeightsArgs<T>& args, ThreadTeam& team) {
  const Window2d& w = args.window;
  const PatternView& filters = args.pattern;
  const TileReads reads = forward_reads(w);
  const Tiles tiles = Tiles::make(w.out_height, w.out_width, args.x);
  const std::vector<std::int64_t> places = column_places(w, reads);
  // Each run of filters packs all tiles for itself, so that there are no more than threads.
  const std::int64_t parts = HWY_MIN(std::int64_t{team.size()}, filters.rows);
  team.parallel_for(parts, 1, [&](std::int64_t begin, std::int64_t end) HWY_ATTR {
    const Range rows = {filters.rows * begin / parts, filters.rows * end / parts};
    T* packed = scratch<T>(reads.channels * reads.channel_stride() * kLanes<T>);
    T* const dvalues = args.gradient.values;
    if (!args.gradient.adds_up) {
      std::fill(dvalues + filters.row_offsets[rows.begin], dvalues + filters.row_offsets[rows.end],
                T{0});
    }
    for (std::int64_t tile = 0; tile < tiles.count; ++tile) {
      const Tiles::Place at = tiles.place<T>(tile);
      with_vectors<T>(at, [&](auto d) HWY_ATTR {
        hn::Vec<decltype(d)> dz[kTilePixels];
        pack_tile(d, reads, args.x.panel(at.panel), args.x.width, at.lane, at.y, at.x, packed);
        for (std::int64_t row = rows.begin; row < rows.end; ++row) {
          load_gradients(d, args.dz, w, at, row, dz);
          add_products(d, filters, places, row, dz, packed, reads.row_stride(), dvalues);
        }
      });
    }
    sum_conv_bias(args.dz, w.out_pixels(), rows, args.gradient);
  });
}

}  // namespace

SPDNN_LINEAR_TARGETS(conv)

}  // namespace spdnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace spdnn {
SPDNN_LINEAR_DISPATCH(conv_sparse_cpu, conv)
}  // namespace spdnn
#endif  // HWY_ONCE
