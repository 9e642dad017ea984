// Finding equal images and images that a layer left alone, against plain loops over all pairs.
#include "cpu/equal_images.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "kernels/targets.hpp"
#include "support/devices.hpp"

namespace spdnn {
namespace {

/// Whether two images have the same bits in every feature.
bool equal_bits(const Panels<const float>& a, std::int64_t i, const Panels<const float>& b,
                std::int64_t j) {
  for (std::int64_t f = 0; f < a.features; ++f) {
    if (std::memcmp(&a.at(f, i), &b.at(f, j), sizeof(float)) != 0) return false;
  }
  return true;
}

std::vector<std::int32_t> expected_first(const Panels<const float>& x,
                                         const std::vector<std::uint8_t>& alive) {
  std::vector<std::int32_t> first(static_cast<std::size_t>(x.batch));
  for (std::int64_t s = 0; s < x.batch; ++s) {
    std::int64_t other = 0;
    const auto differs = [&](std::int64_t o) {
      return alive[o] == 0 || alive[s] == 0 || !equal_bits(x, o, x, s);
    };
    while (other < s && differs(other)) ++other;
    first[s] = static_cast<std::int32_t>(other);
  }
  return first;
}

/// A batch of images, `distinct` of them different, in panels.
struct Batch {
  Batch(std::int64_t features, std::int64_t batch, std::int64_t width, std::uint64_t distinct,
        std::uint64_t seed)
      : x{nullptr, features, batch, width, nullptr} {
    values.assign(static_cast<std::size_t>(x.size()), -3.0F);  // unused lanes hold it too
    x.data = values.data();
    std::mt19937_64 random(seed);
    for (std::int64_t i = 0; i < batch; ++i) {
      const std::uint64_t kind = random() % distinct;
      for (std::int64_t f = 0; f < features; ++f) {
        // Kinds differ in one feature alone, half of them in the last.
        const bool here = f == (kind % 2 == 0 ? features - 1 : std::int64_t(kind / 2) % features);
        x.at(f, i) = here ? static_cast<float>(kind) : 0.25F;
      }
    }
  }
  std::vector<float> values;
  Panels<float> x;
};

void check_equal(const Batch& batch, const std::vector<std::uint8_t>& alive,
                 std::uint32_t hash_bits, Stream& stream) {
  Panels<const float> x = batch.x;
  const auto bound = static_cast<std::int32_t>(x.batch);
  const std::int32_t live = bound - bound / 4;
  std::vector<std::int32_t> first(static_cast<std::size_t>(bound), -9);
  find_equal_cpu({x, alive.data(), first.data()}, stream, hash_bits);
  ASSERT_EQ(first, expected_first(x, alive));
  // With a count of living images, those past it are not looked at.
  x.live = &live;
  std::fill(first.begin(), first.end(), -9);
  find_equal_cpu({x, nullptr, first.data()}, stream, hash_bits);
  x.batch = live;
  std::vector<std::int32_t> expected =
      expected_first(x, std::vector<std::uint8_t>(static_cast<std::size_t>(bound), 1));
  expected.resize(first.size(), -9);
  ASSERT_EQ(first, expected);
}

TEST(FindEqual, NamesTheFirstImageOfEachKindWhateverTheHashesDo) {
  test::for_each_target([] {
    for (const int threads : {1, 3}) {
      DeviceSpec spec;
      spec.threads = threads;
      const std::unique_ptr<Device> device = open_device(spec);
      const std::unique_ptr<Stream> stream = device->make_stream();
      std::mt19937_64 random(3);
      for (const std::int64_t features : {1, 3, 4, 37}) {
        for (const std::int64_t size : {0, 1, 16, 33, 200}) {
          for (const std::uint64_t distinct : {1, 5, 1000}) {
            for (const std::uint32_t hash_bits : {~0U, 1U, 0U}) {  // 0: all images collide
              SCOPED_TRACE(testing::Message()
                           << features << " features, batch " << size << ", " << distinct
                           << " kinds, hash bits " << hash_bits << ", threads " << threads);
              const std::int64_t width = features % 2 == 0 ? 16 : 32;
              const Batch batch(features, size, width, distinct, random());
              std::vector<std::uint8_t> alive(static_cast<std::size_t>(size) + 1);
              for (auto& flag : alive) flag = random() % 8 == 0 ? 0 : 1;
              check_equal(batch, alive, hash_bits, *stream);
              if (testing::Test::HasFatalFailure()) return;
            }
          }
        }
      }
    }
  });
}

TEST(FindEqual, TellsZerosOfEitherSignApart) {
  const std::unique_ptr<Device> device = open_device({});
  const std::unique_ptr<Stream> stream = device->make_stream();
  Batch batch(2, 3, 32, 1, 1);
  for (std::int64_t i = 0; i < 3; ++i) batch.x.at(1, i) = i == 1 ? -0.0F : 0.0F;
  std::vector<std::int32_t> first(3);
  layout_kernels<float>(DeviceKind::cpu).find_equal({batch.x, nullptr, first.data()}, *stream);
  EXPECT_EQ(first, (std::vector<std::int32_t>{0, 1, 0}));
}

TEST(FindUnchanged, FlagsImagesThatAreEqualInBoth) {
  test::for_each_target([] {
    const std::unique_ptr<Device> device = open_device({});
    const std::unique_ptr<Stream> stream = device->make_stream();
    std::mt19937_64 random(17);
    for (const std::int64_t features : {1, 16, 37, 100}) {
      for (const std::int64_t size : {0, 1, 32, 65, 200}) {
        for (const std::uint64_t changed : {0, 50, 100}) {  // percent
          const Batch before(features, size, 32, 7, random());
          Batch after = before;
          after.x.data = after.values.data();
          std::vector<std::uint8_t> expected(static_cast<std::size_t>(size), 1);
          for (std::int64_t i = 0; i < size; ++i) {
            if (random() % 100 >= changed) continue;
            after.x.at(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(features)),
                       i) += 1.0F;
            expected[i] = 0;
          }
          std::vector<std::uint8_t> got(static_cast<std::size_t>(size), 9);
          layout_kernels<float>(DeviceKind::cpu)
              .find_unchanged({before.x, after.x, got.data()}, *stream);
          ASSERT_EQ(got, expected) << features << " features, batch " << size;
        }
      }
    }
  });
}

}  // namespace
}  // namespace spdnn
