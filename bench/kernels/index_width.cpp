// Would narrower columns pay? The loop of the CPU kernel over eight rows with lists of their own,
// with columns of 16 bits and with distances of 8 bits between the columns of a row. All values are
// equal, so that columns are all a row reads beside activations: the case in which they weigh most.
// Bytes an entry: 128 of activations (32 images), and 2 or 1 of columns.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/index_width.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cstdint>

#ifndef SPDNN_BENCH_INDEX_WORK
#define SPDNN_BENCH_INDEX_WORK
namespace spdnn::bench {
/// Blocks of eight rows of equal length; columns stand `[block][entry][row]`.
template <class Index>
struct IndexWork {
  const Index* columns;
  const float* x;  ///< `[features][32]`
  float* y;        ///< `[8 · blocks][32]`
  std::int64_t blocks, entries;
};
}  // namespace spdnn::bench
#endif

HWY_BEFORE_NAMESPACE();
namespace spdnn::bench::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;

constexpr std::int64_t kWidth = 32;
constexpr int kRows = 8;

/// `kDistances`: an index is the distance to the row's last column.
template <bool kDistances, class Index>
HWY_INLINE void sum_rows(const IndexWork<Index>& work) {
  const D d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V value = hn::Set(d, 0.0625F);
  for (std::int64_t lane = 0; lane < kWidth; lane += 2 * lanes) {
    const Index* at = work.columns;
    for (std::int64_t b = 0; b < work.blocks; ++b) {
      V sum[kRows][2];
      const float* from[kRows];
      for (int r = 0; r < kRows; ++r) {
        sum[r][0] = sum[r][1] = hn::Zero(d);
        from[r] = work.x + lane;
      }
      for (std::int64_t k = 0; k < work.entries; ++k, at += kRows) {
        for (int r = 0; r < kRows; ++r) {
          const float* x = (kDistances ? from[r] : work.x + lane) + at[r] * kWidth;
          if (kDistances) from[r] = x;
          sum[r][0] = hn::MulAdd(value, hn::LoadU(d, x), sum[r][0]);
          sum[r][1] = hn::MulAdd(value, hn::LoadU(d, x + lanes), sum[r][1]);
        }
      }
      for (int r = 0; r < kRows; ++r) {
        float* y = work.y + (b * kRows + r) * kWidth + lane;
        hn::StoreU(sum[r][0], d, y);
        hn::StoreU(sum[r][1], d, y + lanes);
      }
    }
  }
}

}  // namespace

void sum_columns(const IndexWork<std::uint16_t>& work) { sum_rows<false>(work); }
void sum_distances(const IndexWork<std::uint8_t>& work) { sum_rows<true>(work); }

}  // namespace spdnn::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <benchmark/benchmark.h>

#include <algorithm>
#include <random>
#include <vector>

#include "kernels/benchmarks.hpp"
#include "spdnn/comm.hpp"
#include "spdnn/op.hpp"

namespace spdnn::bench {
namespace {

HWY_EXPORT(sum_columns);
HWY_EXPORT(sum_distances);

constexpr std::int64_t kEntries = 32;

/// Rows of `kEntries` ascending columns, none further than 255 from the one before.
std::vector<std::uint8_t> draw_distances(std::int64_t features) {
  std::mt19937 random(1);
  std::vector<std::uint8_t> distances(static_cast<std::size_t>(features * kEntries));
  std::vector<std::int64_t> columns(kEntries);
  for (std::int64_t row = 0; row < features; ++row) {
    bool near = false;
    while (!near) {
      for (std::int64_t& column : columns) column = random() % features;
      std::sort(columns.begin(), columns.end());
      near = columns[0] < 256;
      for (std::size_t k = 1; k < columns.size(); ++k) {
        near = near && columns[k] - columns[k - 1] < 256;
      }
    }
    std::int64_t last = 0;
    for (std::int64_t k = 0; k < kEntries; ++k) {
      distances[(row / 8 * kEntries + k) * 8 + row % 8] =
          static_cast<std::uint8_t>(columns[k] - last);
      last = columns[k];
    }
  }
  return distances;
}

/// Both loops in turn over the same lists; the least time of each counts.
void compare(::benchmark::State& state, std::int64_t features) {
  const std::vector<std::uint8_t> distances = draw_distances(features);
  std::vector<std::uint16_t> columns(distances.size());
  for (std::size_t i = 0; i < distances.size(); ++i) {
    const bool first = i / 8 % kEntries == 0;
    columns[i] = static_cast<std::uint16_t>(distances[i] + (first ? 0 : columns[i - 8]));
  }
  const std::unique_ptr<Device> device = open_device({});
  const auto bytes = static_cast<std::size_t>(features * 32) * sizeof(float);
  const Buffer x = device->allocate(bytes);
  const Buffer y = device->allocate(bytes);
  std::fill_n(x.as<float>(), features * 32, 1.0F);
  const std::int64_t blocks = features / 8;
  double wide = 1.0;
  double narrow = 1.0;
  for (auto _ : state) {
    double start = now_seconds();
    HWY_DYNAMIC_DISPATCH(sum_columns)
    ({columns.data(), x.as<float>(), y.as<float>(), blocks, kEntries});
    wide = std::min(wide, now_seconds() - start);
    start = now_seconds();
    HWY_DYNAMIC_DISPATCH(sum_distances)
    ({distances.data(), x.as<float>(), y.as<float>(), blocks, kEntries});
    narrow = std::min(narrow, now_seconds() - start);
  }
  const auto edges = static_cast<double>(features * kEntries * 32);
  state.counters["edges_per_s_16_bits"] = edges / wide;
  state.counters["edges_per_s_8_bits"] = edges / narrow;
  state.counters["speedup_of_8_bits"] = wide / narrow;
}

}  // namespace

void add_index_width() {
  for (const std::int64_t features : {256, 512, 1024}) {
    const std::string name = "index_width/features:" + std::to_string(features);
    ::benchmark::RegisterBenchmark(name.c_str(), [=](::benchmark::State& state) {
      compare(state, features);
    })->MinTime(0.2);
  }
}

}  // namespace spdnn::bench
#endif  // HWY_ONCE
