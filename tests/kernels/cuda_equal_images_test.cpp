// The CUDA kernels that find equal and unchanged images, run by the SIMT layer against plain loops.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <vector>

#include "cuda/equal_images.cuh"

namespace spdnn {
namespace {

const std::array<simt::Schedule, 3> kSchedules = {simt::Schedule{simt::Order::forward, 0},
                                                  simt::Schedule{simt::Order::reversed, 0},
                                                  simt::Schedule{simt::Order::random, 29}};

/// Images that differ, if at all, in one feature.
struct Batch {
  Batch(std::int64_t features, std::int64_t batch, std::uint64_t kinds, std::uint64_t seed)
      : x{nullptr, features, batch, 64, nullptr} {
    values.assign(static_cast<std::size_t>(x.size()), -3.0F);  // unused lanes hold it too
    x.data = values.data();
    std::mt19937_64 random(seed);
    for (std::int64_t i = 0; i < batch; ++i) {
      const std::uint64_t kind = random() % kinds;
      const auto at = static_cast<std::int64_t>(kind * 7 % static_cast<std::uint64_t>(features));
      for (std::int64_t f = 0; f < features; ++f) {
        x.at(f, i) = f == at ? 1.0F + static_cast<float>(kind) : 0.25F;
      }
    }
  }
  [[nodiscard]] bool equal(std::int64_t i, std::int64_t j) const {
    for (std::int64_t f = 0; f < x.features; ++f) {
      if (std::memcmp(&x.at(f, i), &x.at(f, j), sizeof(float)) != 0) return false;
    }
    return true;
  }
  std::vector<float> values;
  Panels<float> x;
};

std::vector<std::int32_t> expected_first(const Batch& batch, const std::uint8_t* alive,
                                         std::int64_t live) {
  std::vector<std::int32_t> first(static_cast<std::size_t>(batch.x.batch), -9);
  for (std::int64_t s = 0; s < live; ++s) {
    std::int64_t other = 0;
    const auto counts = [&](std::int64_t i) { return alive == nullptr || alive[i] != 0; };
    while (other < s && !(counts(s) && counts(other) && batch.equal(other, s))) ++other;
    first[s] = static_cast<std::int32_t>(other);
  }
  return first;
}

std::vector<std::int32_t> found_first(const Batch& batch, const std::uint8_t* alive,
                                      const std::int32_t* live, cuda::HashWord mask,
                                      std::int64_t slots, unsigned grid,
                                      const simt::Schedule& schedule) {
  const auto size = static_cast<std::size_t>(batch.x.batch);
  std::vector<std::int32_t> first(size, -9);
  std::vector<cuda::HashWord> hashes(size + 1);
  std::vector<std::int32_t> table(static_cast<std::size_t>(slots), 7);
  Panels<const float> x = batch.x;
  x.live = live;
  const cuda::EqualArgs args{x, alive, first.data(), hashes.data(), table.data(), slots, mask};
  const simt::Launch launch{grid, cuda::EqualTraits::block, 0, schedule};
  simt::launch(launch, &cuda::empty_table_kernel, args);
  simt::launch(launch, &cuda::hash_images_kernel, args);
  simt::launch(launch, &cuda::enter_images_kernel, args);
  simt::launch(launch, &cuda::look_up_kernel, args);
  simt::launch(launch, &cuda::compare_images_kernel, args);
  return first;
}

TEST(CudaSimtEqual, NamesTheLowestSlotWithTheSameImage) {
  std::mt19937_64 random(3);
  for (const std::int64_t features : {1, 5, 128, 131}) {
    for (const std::int64_t size : {0, 1, 63, 65, 300}) {
      for (const std::uint64_t kinds : {1, 9, 2000}) {
        const Batch batch(features, size, kinds, random());
        std::vector<std::uint8_t> alive(static_cast<std::size_t>(size) + 1);
        for (auto& flag : alive) flag = random() % 6 == 0 ? 0 : 1;
        const auto live = static_cast<std::int32_t>(size - size / 4);
        std::int64_t slots = 2;
        while (slots <= size) slots *= 2;  // hardly more than images: probing goes far
        for (const simt::Schedule& schedule : kSchedules) {
          const auto grid = static_cast<unsigned>(1 + random() % 4);
          SCOPED_TRACE(testing::Message() << features << " features, batch " << size << ", "
                                          << kinds << " kinds, grid " << grid);
          ASSERT_EQ(found_first(batch, alive.data(), nullptr, ~0ULL, slots, grid, schedule),
                    expected_first(batch, alive.data(), size));
          ASSERT_EQ(found_first(batch, nullptr, &live, ~0ULL, slots, grid, schedule),
                    expected_first(batch, nullptr, live));
        }
      }
    }
  }
}

TEST(CudaSimtEqual, CollidingHashesNeverMakeUnlikeImagesEqual) {
  const Batch batch(20, 150, 12, 4);
  for (const cuda::HashWord mask : {0ULL, 3ULL}) {
    const std::vector<std::int32_t> first =
        found_first(batch, nullptr, nullptr, mask, 512, 2, kSchedules[2]);
    std::int64_t merged = 0;
    for (std::int64_t i = 0; i < 150; ++i) {
      ASSERT_LE(first[i], i);
      ASSERT_TRUE(batch.equal(i, first[i])) << i;
      merged += first[i] < i;
    }
    EXPECT_GT(merged, 0);
  }
}

TEST(CudaSimtEqual, UnchangedImagesAreEqualInBoth) {
  std::mt19937_64 random(17);
  for (const std::int64_t features : {1, 16, 128, 300}) {
    for (const std::int64_t size : {0, 1, 64, 65, 200}) {
      const Batch before(features, size, 7, random());
      Batch after = before;
      after.x.data = after.values.data();
      const auto live = static_cast<std::int32_t>(size - size / 5);
      std::vector<std::uint8_t> expected(static_cast<std::size_t>(size), 0);
      for (std::int64_t i = 0; i < live; ++i) {
        expected[i] = random() % 2 == 0 ? 1 : 0;
        const auto changed =
            static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(features));
        if (expected[i] == 0) after.x.at(changed, i) += 1.0F;
      }
      for (const simt::Schedule& schedule : kSchedules) {
        std::vector<std::uint8_t> got(static_cast<std::size_t>(size), 9);
        Panels<const float> x = before.x;
        x.live = &live;
        const cuda::UnchangedArgs args{x, after.x, got.data()};
        const simt::Launch launch{3, cuda::EqualTraits::block, 0, schedule};
        simt::launch(launch, &cuda::assume_unchanged_kernel, args);
        simt::launch(launch, &cuda::clear_changed_kernel, args);
        ASSERT_EQ(got, expected) << features << " features, batch " << size;
      }
    }
  }
}

}  // namespace
}  // namespace spdnn
