// Forward and backward of dense layers on panels, vectorised over the images.
//
// forward and backward_data are one matrix product, W or Wᵀ by a panel: a tile of rows by two
// vectors of images is held in registers while the panel's features stream by, so that each loaded
// vector feeds a tile's height of multiply–adds. backward_weights tiles dW by 4 × 4 entries: eight
// vectors loaded feed sixteen multiply–adds, summed across lanes at the end. A panel is within the
// caches; the floor is the multiply–add rate.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/train_dense.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "cpu/cpu_kernels.hpp"
#include "cpu/train_dispatch.hpp"
#include "cpu/train_lanes.hpp"

HWY_BEFORE_NAMESPACE();
namespace spdnn::HWY_NAMESPACE {
namespace {

/// out[i] = Σ_k values[i · row_step + k · col_step] · in[k]: W or its transpose.
template <class T>
struct Product {
  std::int64_t rows, cols;
  std::int64_t row_step, col_step;
  const T* values;
};

constexpr int kVectorsAtOnce = 2;
/// Rows of a tile: as many as registers hold.
constexpr int kTileRows = HWY_TARGET <= HWY_AVX3 ? 8 : 4;

template <int kRows, int kTileVectors, class T, class Store>
HWY_INLINE void multiply_tile(const Product<T>& product, std::int64_t row, std::int64_t lane,
                              const T* in, std::int64_t width, const Store& store) {
  const Tag<T> d;
  Vec<T> sum[kRows][kTileVectors];
  for (auto& r : sum) {
    for (Vec<T>& s : r) s = hn::Zero(d);
  }
  const T* values = product.values + row * product.row_step;
  for (std::int64_t k = 0; k < product.cols; ++k) {
    Vec<T> from[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) {
      from[v] = hn::LoadU(d, in + k * width + lane + v * kLanes<T>);
    }
    for (int r = 0; r < kRows; ++r) {
      const auto value = hn::Set(d, values[r * product.row_step + k * product.col_step]);
      for (int v = 0; v < kTileVectors; ++v) sum[r][v] = hn::MulAdd(value, from[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) store(row + r, lane + v * kLanes<T>, sum[r][v]);
  }
}

/// The rows of a tile, as far as they are there, for some vectors of one panel.
template <int kTileVectors, class T, class Store>
HWY_INLINE void multiply_rows(const Product<T>& product, std::int64_t row, std::int64_t lane,
                              const T* in, std::int64_t width, const Store& store) {
  if (row + kTileRows <= product.rows) {
    multiply_tile<kTileRows, kTileVectors>(product, row, lane, in, width, store);
    return;
  }
  for (std::int64_t r = row; r < product.rows; ++r) {
    multiply_tile<1, kTileVectors>(product, r, lane, in, width, store);
  }
}

/// The product by all panels on a team; `store_of(panel)` is what follows the sums of one.
template <class T, class StoreOf>
void multiply(const Product<T>& product, const Panels<const T>& in, ThreadTeam& team,
              const StoreOf& store_of) {
  const std::int64_t tiles = (product.rows + kTileRows - 1) / kTileRows;
  team.parallel_for(in.count() * tiles, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const std::int64_t panel = piece / tiles;
      const std::int64_t row = piece % tiles * kTileRows;
      const auto store = store_of(panel);
      const T* from = in.panel(panel);
      const std::int64_t used = lanes_used<T>(in, panel);
      constexpr std::int64_t together = kVectorsAtOnce * kLanes<T>;
      std::int64_t lane = 0;
      for (; lane + together <= used; lane += together) {
        multiply_rows<kVectorsAtOnce>(product, row, lane, from, in.width, store);
      }
      for (; lane < used; lane += kLanes<T>) {
        multiply_rows<1>(product, row, lane, from, in.width, store);
      }
      for (; lane < in.width; lane += kLanes<T>) {
        for (std::int64_t r = row; r < HWY_MIN(row + kTileRows, product.rows); ++r) {
          store.clear(r, lane);
        }
      }
    }
  });
}

template <class T>
void forward(const ForwardArgs<T>& args, ThreadTeam& team) {
  const PatternView& w = args.layer.pattern;
  const Product<T> product = {w.rows, w.cols, w.cols, 1, args.layer.values};
  multiply(product, args.x, team, [&](std::int64_t panel) {
    return StoreActivation<T>{args.layer.bias, args.y.panel(panel), args.y.width,
                              T{args.activation.lower}, T{args.activation.upper}};
  });
}

template <class T>
void backward_data(const BackwardDataArgs<T>& args, ThreadTeam& team) {
  const PatternView& w = args.layer.pattern;
  const Product<T> product = {w.cols, w.rows, 1, w.cols, args.layer.values};
  multiply(product, args.dz, team, [&](std::int64_t panel) {
    return StoreMasked<T>{args.x.panel(panel), args.dx.panel(panel), args.x.width,
                          T{args.activation.lower}, T{args.activation.upper}};
  });
}

constexpr int kTile = 4;

/// Adds the products of `panels` to 4 × 4 entries of dW; what lies past its ends is left out.
template <class T>
HWY_INLINE void sum_tile(const BackwardWeightsArgs<T>& args, Range panels, std::int64_t row,
                         std::int64_t col) {
  const Tag<T> d;
  const PatternView& w = args.pattern;
  const std::int64_t width = args.x.width;
  const T* dz_at[kTile];
  const T* x_at[kTile];
  for (int i = 0; i < kTile; ++i) {
    dz_at[i] = args.dz.data + HWY_MIN(row + i, w.rows - 1) * width;
    x_at[i] = args.x.data + HWY_MIN(col + i, w.cols - 1) * width;
  }
  Vec<T> sum[kTile * kTile];
  for (Vec<T>& s : sum) s = hn::Zero(d);
  for (std::int64_t p = panels.begin; p < panels.end; ++p) {
    const std::int64_t used = lanes_used<T>(args.x, p);
    for (std::int64_t lane = 0; lane < used; lane += kLanes<T>) {
      Vec<T> x[kTile];
      for (int j = 0; j < kTile; ++j) x[j] = hn::LoadU(d, x_at[j] + p * w.cols * width + lane);
      for (int i = 0; i < kTile; ++i) {
        const auto dz = hn::LoadU(d, dz_at[i] + p * w.rows * width + lane);
        for (int j = 0; j < kTile; ++j) {
          sum[i * kTile + j] = hn::MulAdd(dz, x[j], sum[i * kTile + j]);
        }
      }
    }
  }
  const bool adds_up = args.gradient.adds_up || panels.begin > 0;
  HWY_ALIGN T sums[kTile * kTile];
  for (int i = 0; i < kTile * kTile; i += kLanes<T>) {
    hn::Store(sums_across<kLanes<T>, T>(sum + i), d, sums + i);
  }
  for (int i = 0; i < kTile && row + i < w.rows; ++i) {
    for (int j = 0; j < kTile && col + j < w.cols; ++j) {
      T& to = args.gradient.values[(row + i) * w.cols + col + j];
      to = (adds_up ? to : T{0}) + sums[i * kTile + j];
    }
  }
}

template <class T>
void backward_weights(const BackwardWeightsArgs<T>& args, ThreadTeam& team) {
  const PatternView& w = args.pattern;
  const bool is_zero = args.x.batch == 0 && !args.gradient.adds_up;
  if (is_zero) std::fill_n(args.gradient.values, w.rows * w.cols, T{0});
  constexpr std::int64_t kColumns = 64;  // of a piece
  const std::int64_t together = panels_together<T>(kColumns, args.x.width);
  const std::int64_t tiles = (w.rows + kTile - 1) / kTile;
  const std::int64_t strips = (w.cols + kColumns - 1) / kColumns;
  team.parallel_for(tiles * strips, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const std::int64_t row = piece % tiles * kTile;
      const std::int64_t first = piece / tiles * kColumns;
      for (std::int64_t p = 0; p < args.x.count(); p += together) {
        const Range panels = {p, HWY_MIN(p + together, args.x.count())};
        for (std::int64_t col = first; col < HWY_MIN(first + kColumns, w.cols); col += kTile) {
          sum_tile(args, panels, row, col);
        }
      }
    }
  });
  sum_bias(args.dz, {0, w.rows}, args.gradient);
}

}  // namespace

SPDNN_LINEAR_TARGETS(dense)

}  // namespace spdnn::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace spdnn {
SPDNN_LINEAR_DISPATCH(train_dense_cpu, dense)
}  // namespace spdnn
#endif  // HWY_ONCE
