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

std::vector<std::int32_t> shuffled_ids(std::size_t count, std::uint64_t seed) {
  std::vector<std::int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), 0);
  std::mt19937_64 random(seed);
  std::shuffle(ids.begin(), ids.end(), random);
  return ids;
}

/// `CompactArgs`' rule, one slot after another.
Map expected_map(const std::vector<std::uint8_t>& alive, const std::vector<std::int32_t>& ids,
                 std::int32_t count, bool keep_representative) {
  Map map{std::vector<std::int32_t>(alive.size(), kUnset),
          std::vector<std::int32_t>(alive.size(), kUnset),
          std::vector<std::int32_t>(alive.size(), kUnset), 0};
  std::int32_t representative = -1;
  for (std::int32_t s = 0; s < count; ++s) {
    if (alive[s] == 0 && (!keep_representative || representative >= 0)) {
      if (keep_representative) map.parent[ids[s]] = representative;
      continue;
    }
    if (alive[s] == 0) representative = ids[s];
    map.source[map.live] = s;
    map.ids[map.live++] = ids[s];
  }
  return map;
}

/// `live` < 0: all slots, with no count in memory.
template <int kFlags>
Map mapped(const std::vector<std::uint8_t>& alive, const std::vector<std::int32_t>& ids,
           std::int32_t live, bool keep_representative, const simt::Schedule& schedule) {
  Map map{std::vector<std::int32_t>(alive.size(), kUnset),
          std::vector<std::int32_t>(alive.size(), kUnset),
          std::vector<std::int32_t>(alive.size(), kUnset), -1};
  const cuda::MapArgs args{alive.data(),
                           ids.data(),
                           live < 0 ? nullptr : &live,
                           static_cast<std::int64_t>(alive.size()),
                           keep_representative,
                           map.parent.data(),
                           map.source.data(),
                           map.ids.data(),
                           &map.live};
  simt::launch({1, cuda::LayoutTraits::scan_block, 0, schedule}, &cuda::map_images_kernel<kFlags>,
               args);
  return map;
}

TEST(CudaSimtLayout, MapFollowsTheRuleOfCompaction) {
  std::mt19937_64 random(5);
  std::uint64_t seed = 0;
  for (const std::size_t batch : {0, 1, 31, 32, 33, 64, 1000, 1024, 1025, 3001}) {
    for (const int percent_alive : {0, 3, 50, 97, 100}) {
      std::vector<std::uint8_t> alive(batch);
      for (auto& flag : alive) flag = static_cast<int>(random() % 100) < percent_alive ? 1 : 0;
      const std::vector<std::int32_t> ids = shuffled_ids(batch, ++seed);
      const auto all = static_cast<std::int32_t>(batch);
      for (const std::int32_t live : {-1, all / 2, all}) {
        for (const bool keep : {false, true}) {
          SCOPED_TRACE(fmt::format("batch {} alive {} % live {} keep {} seed {}", batch,
                                   percent_alive, live, keep, seed));
          const Map expected = expected_map(alive, ids, live < 0 ? all : live, keep);
          const simt::Schedule& schedule =
              kSchedules[(seed + static_cast<std::uint64_t>(keep)) % 3];
          ASSERT_EQ(mapped<1>(alive, ids, live, keep, schedule), expected);
          ASSERT_EQ(mapped<cuda::LayoutTraits::flags_per_lane>(alive, ids, live, keep, schedule),
                    expected);
        }
      }
    }
  }
}

TEST(CudaSimtLayout, MapTakesManySteps) {
  std::mt19937_64 random(6);
  std::vector<std::uint8_t> alive(20011, 1);
  for (std::size_t i = 9000; i < alive.size(); ++i) alive[i] = random() % 2;
  const std::vector<std::int32_t> ids = shuffled_ids(alive.size(), 6);
  for (const simt::Schedule& schedule : kSchedules) {
    ASSERT_EQ(mapped<cuda::LayoutTraits::flags_per_lane>(alive, ids, -1, true, schedule),
              expected_map(alive, ids, 20011, true));
  }
}

TEST(CudaSimtLayout, MoveGathersTheKeptImages) {
  std::mt19937_64 random(7);
  for (const std::int64_t width : {32, 64, 128}) {
    for (const std::int64_t features : {1, 33, 131, 300}) {
      for (const std::int32_t kept : {0, 1, 31, 64, 65, 200}) {
        const std::int64_t batch = 200;
        Panels<float> x{nullptr, features, batch, width, nullptr};
        std::vector<float> in = test::random_floats(static_cast<std::size_t>(x.size()), random);
        std::vector<std::int32_t> source;
        for (std::int32_t s = 0; s < kept; ++s)
          source.push_back(s + (s >= kept / 2 ? 200 - kept : 0));
        std::vector<float> expected(in.size(), -3.0F);
        x.data = in.data();
        Panels<float> y{expected.data(), features, batch, width, nullptr};
        for (std::int32_t d = 0; d < kept; ++d) {
          for (std::int64_t f = 0; f < features; ++f) y.at(f, d) = x.at(f, source[d]);
        }
        for (const simt::Schedule& schedule : kSchedules) {
          std::vector<float> got(in.size(), -3.0F);
          y.data = got.data();
          simt::launch({3, cuda::LayoutTraits::block, 0, schedule},
                       &cuda::move_images_kernel<cuda::LayoutTraits::features_per_block>,
                       Panels<const float>(x), y, source.data(), &kept);
          ASSERT_EQ(got, expected)
              << "width " << width << " features " << features << " kept " << kept;
        }
      }
    }
  }
}

}  // namespace
}  // namespace spdnn
