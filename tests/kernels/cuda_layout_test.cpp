// The CUDA kernels that move activations, run by the SIMT layer.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <numeric>

#include "cuda/dispatch.hpp"
#include "cuda/layout.cuh"
#include "support/networks.hpp"

namespace spdnn {
namespace {

const std::array<simt::Schedule, 3> kSchedules = {simt::Schedule{simt::Order::forward, 0},
                                                  simt::Schedule{simt::Order::reversed, 0},
                                                  simt::Schedule{simt::Order::random, 17}};

TEST(CudaSimtLayout, ExpandWritesEveryNonzero) {
  std::mt19937_64 random(11);
  for (const std::int64_t batch : {1, 31, 33, 130}) {
    for (const bool shared : {false, true}) {
      for (const std::int64_t features : {50, 70000}) {
        const Csr images =
            test::random_csr({batch, features, 45, test::Rows::irregular, shared}, random);
        const CsrView& view = images.view();
        Panels<float> y{nullptr, features, batch, 64, nullptr};
        std::vector<float> expected(static_cast<std::size_t>(y.size()));
        y.data = expected.data();
        for (std::int64_t i = 0; i < batch; ++i) {
          for (std::int64_t k = view.row_begin(i); k < view.row_begin(i + 1); ++k) {
            y.at(view.col(k), i) = static_cast<float>(view.value(k));
          }
        }
        for (const simt::Schedule& schedule : kSchedules) {
          std::vector<float> got(expected.size());
          y.data = got.data();
          cuda::with_index(view.index_type, [&](auto index) {
            simt::launch({3, cuda::LayoutTraits::block, 0, schedule},
                         &cuda::expand_kernel<decltype(index)>, view, y);
          });
          ASSERT_EQ(got, expected) << "batch " << batch << " features " << features;
        }
      }
    }
  }
}

struct Map {
  std::vector<std::int32_t> source, ids, parent;
  std::int32_t live = -1;
  friend bool operator==(const Map&, const Map&) = default;
};

constexpr std::int32_t kUnset = -9;

Map unset_map(std::size_t batch, std::int64_t first_out) {
  const std::vector<std::int32_t> unset(batch, kUnset);
  return {unset, std::vector<std::int32_t>(batch + static_cast<std::size_t>(first_out), kUnset),
          unset, -1};
}

std::vector<std::int32_t> shuffled_ids(std::size_t count, std::uint64_t seed) {
  std::vector<std::int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), 0);
  std::mt19937_64 random(seed);
  std::shuffle(ids.begin(), ids.end(), random);
  return ids;
}

struct MapCase {
  std::vector<std::uint8_t> alive;
  std::vector<std::int32_t> ids;
  std::int32_t live = -1;  ///< below 0: all slots, with no count in memory
  bool keep_representative = false;
  std::int64_t first_out = 0;
};

/// `CompactArgs`' rule, one slot after another.
Map expected_map(const MapCase& c) {
  Map map = unset_map(c.alive.size(), c.first_out);
  map.live = 0;
  std::int32_t representative = -1;
  const auto count = c.live < 0 ? static_cast<std::int32_t>(c.alive.size()) : c.live;
  for (std::int32_t s = 0; s < count; ++s) {
    if (c.alive[s] == 0 && (!c.keep_representative || representative >= 0)) {
      if (c.keep_representative) map.parent[c.ids[s]] = representative;
      continue;
    }
    if (c.alive[s] == 0) representative = c.ids[s];
    map.source[map.live] = s;
    map.ids[c.first_out + map.live++] = c.ids[s];
  }
  return map;
}

/// The kernels' map, the flags scanned here as CUB scans them on a GPU.
Map mapped(const MapCase& c, unsigned grid, const simt::Schedule& schedule) {
  const auto batch = static_cast<std::int64_t>(c.alive.size());
  Map map = unset_map(c.alive.size(), c.first_out);
  const Panels<const float> x{nullptr, 0, batch, 64, c.live < 0 ? nullptr : &c.live};
  const cuda::LivingFlag living{c.alive.data(), x};
  std::vector<std::int32_t> ranks(c.alive.size() + 1);
  for (std::int32_t s = 0; s < batch; ++s) ranks[s + 1] = ranks[s] + living(s);
  EXPECT_EQ(living(static_cast<std::int32_t>(batch)), 0) << "the slot that ends the scan";
  std::int32_t representative = kUnset;
  const cuda::MapArgs args{x,
                           ranks.data(),
                           c.ids.data(),
                           c.keep_representative,
                           map.parent.data(),
                           &representative,
                           map.source.data(),
                           map.ids.data() + c.first_out,
                           &map.live};
  const simt::Launch launch{grid, cuda::LayoutTraits::block, 0, schedule};
  simt::launch(launch, &cuda::map_images_kernel, args);
  if (c.keep_representative) simt::launch(launch, &cuda::merge_dead_kernel, args);
  return map;
}

TEST(CudaSimtLayout, MapFollowsTheRuleOfCompaction) {
  std::mt19937_64 random(5);
  std::uint64_t seed = 0;
  for (const std::size_t batch : {0, 1, 31, 32, 33, 64, 255, 256, 257, 1025}) {
    for (const unsigned percent_alive : {0U, 3U, 50U, 97U, 100U}) {
      MapCase c{std::vector<std::uint8_t>(batch), shuffled_ids(batch, ++seed)};
      for (auto& flag : c.alive) flag = random() % 100 < percent_alive ? 1 : 0;
      const auto all = static_cast<std::int32_t>(batch);
      for (const std::int32_t live : {-1, all / 2, all}) {
        for (const bool keep : {false, true}) {
          for (const std::int64_t first_out : {0, 5}) {
            SCOPED_TRACE(fmt::format("batch {} alive {} % live {} keep {} first {} seed {}", batch,
                                     percent_alive, live, keep, first_out, seed));
            c.live = live;
            c.keep_representative = keep;
            c.first_out = first_out;
            const Map expected = expected_map(c);
            for (const simt::Schedule& schedule : kSchedules) {
              const auto grid = static_cast<unsigned>(1 + random() % 4);
              ASSERT_EQ(mapped(c, grid, schedule), expected) << "grid " << grid;
            }
          }
        }
      }
    }
  }
}

TEST(CudaSimtLayout, MoveGathersTheKeptImages) {
  std::mt19937_64 random(7);
  for (const std::int64_t width : {32, 64, 128}) {
    for (const std::int64_t features : {1, 33, 131, 300}) {
      for (const std::int32_t kept : {0, 1, 31, 64, 65, 200}) {
        for (const std::int64_t first_out : {0, 5, 63, 130}) {
          const std::int64_t batch = 200;
          Panels<const float> from{nullptr, features, batch, width, nullptr};
          const std::vector<float> in =
              test::random_floats(static_cast<std::size_t>(from.size()), random);
          from.data = in.data();
          std::vector<std::int32_t> source;
          for (std::int32_t s = 0; s < kept; ++s)
            source.push_back(s + (s >= kept / 2 ? 200 - kept : 0));
          Panels<float> y{nullptr, features, first_out + batch, width, nullptr};
          std::vector<float> expected(static_cast<std::size_t>(y.size()), -3.0F);
          y.data = expected.data();
          for (std::int32_t d = 0; d < kept; ++d) {
            for (std::int64_t f = 0; f < features; ++f) {
              y.at(f, first_out + d) = from.at(f, source[d]);
            }
          }
          for (const simt::Schedule& schedule : kSchedules) {
            std::vector<float> got(expected.size(), -3.0F);
            y.data = got.data();
            simt::launch({3, cuda::LayoutTraits::block, 0, schedule}, &cuda::move_images_kernel,
                         cuda::MoveArgs{from, y, first_out, source.data(), &kept});
            ASSERT_EQ(got, expected) << "width " << width << " features " << features << " kept "
                                     << kept << " first " << first_out;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace spdnn
